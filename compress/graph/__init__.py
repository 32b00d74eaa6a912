"""What must be cut together: the channel groups of a network, and the proof that a cut took no more than that."""

from compress.graph.channel_groups import ChannelGraph, ChannelGroup, MapMember, Member
from compress.graph.silence import check_cut

__all__ = ["ChannelGraph", "ChannelGroup", "MapMember", "Member", "check_cut"]
