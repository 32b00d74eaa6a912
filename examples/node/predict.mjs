// Scores PNG images with an exported detector, in Node.js:
//
//     npm install --ignore-scripts
//     node predict.mjs bottle.onnx images/*.png
//
// One line of JSON for each image, as `compress predict` prints them. The file holds the whole detector, from the uint8
// pixels to score and map, so there is nothing to prepare. `--ignore-scripts` leaves out CUDA libraries, which the
// package would fetch and which a CPU has no use for.
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-node";
import { PNG } from "pngjs";

const [model, ...files] = process.argv.slice(2);
if (files.length === 0) {
  console.error("usage: node predict.mjs DETECTOR.onnx IMAGE.png...");
  process.exit(2);
}

/** The image as uint8 (1, H, W, 3), RGB; any height and width. */
function tensorOf(file) {
  const { width, height, data } = PNG.sync.read(readFileSync(file)); // always RGBA
  const rgb = new Uint8Array(width * height * 3);
  for (let pixel = 0; pixel < width * height; pixel++) {
    rgb.set(data.subarray(4 * pixel, 4 * pixel + 3), 3 * pixel);
  }
  return new ort.Tensor("uint8", rgb, [1, height, width, 3]);
}

const session = await ort.InferenceSession.create(model);
for (const image of files) {
  const started = performance.now();
  const { score, normalised, map } = await session.run({ images: tensorOf(image) });
  const hottest = map.data.reduce((best, value, index) => (value > map.data[best] ? index : best), 0);
  const [, , width] = map.dims;
  console.log(
    JSON.stringify({
      image,
      score: score.data[0],
      normalised: normalised.data[0],
      defective: normalised.data[0] > 1,
      hottest: [hottest % width, Math.floor(hottest / width)], // x, y in the map, which covers the centre crop
      ms: Math.round(100 * (performance.now() - started)) / 100,
    }),
  );
}
