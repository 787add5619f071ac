// Images with labels as plain files: digits.json with shapes and names of classes, images.bin, labels.bin.

/** Read a folder of digits. Images are bytes [N, H, W, 3]. */
export async function readDigits(folder) {
  const description = await (await fetch(`${folder}/digits.json`)).json();
  const [images, labels] = await Promise.all(
    [description.images, description.labels].map(async (entry) => {
      const answer = await fetch(`${folder}/${entry.file}`);
      return new Uint8Array(await answer.arrayBuffer());
    }),
  );
  const [count, height, width] = description.images.shape;
  return { images, labels, count, height, width, classes: description.classes };
}

/** Return a copy of some of the images, one after the other. */
export function gatherImages(digits, indices) {
  const size = digits.height * digits.width * 3;
  const pixels = new Uint8Array(indices.length * size);
  indices.forEach((index, place) => pixels.set(digits.images.subarray(index * size, (index + 1) * size), place * size));
  return pixels;
}
