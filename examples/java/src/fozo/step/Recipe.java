package fozo.step;

import com.google.gson.annotations.SerializedName;

/** How a step wants its images: `preprocessing` of step.json. */
record Recipe(
    int[] size, int resize, String interpolation, @SerializedName("crop_mode") String cropMode, int frame) {
  private static final long MOST_PIXELS = 64_000_000;

  /** Return an image, resized and cropped. */
  Image prepare(Image image) throws InputError {
    if (frame > 0) {
      return shrink().prepare(image).cropMiddle(size[0], size[1]);
    }
    long width = resize;
    long height = resize;
    if (cropMode.equals("center")) { // the shorter side gets this length, the longer one is rounded down
      long shorter = Math.min(image.width(), image.height());
      width = resize * (long) image.width() / shorter;
      height = resize * (long) image.height() / shorter;
    }
    if (width * height > MOST_PIXELS) {
      throw new InputError(
          "an image of %dx%d would become one of %dx%d; crop it first"
              .formatted(image.width(), image.height(), width, height));
    }
    if (width != image.width() || height != image.height()) {
      image = Resize.resize(image, (int) width, (int) height, interpolation);
    }
    return image.cropMiddle(size[0], size[1]);
  }

  /** Return the recipe of what is inside the black frame, in proportion. */
  private Recipe shrink() {
    int[] inside = {size[0] - 2 * frame, size[1] - 2 * frame};
    double share = (double) resize * Math.min(inside[0], inside[1]) / Math.min(size[0], size[1]);
    return new Recipe(inside, Math.max(1, (int) Math.rint(share)), interpolation, cropMode, 0);
  }
}
