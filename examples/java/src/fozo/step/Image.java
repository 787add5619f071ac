package fozo.step;

/**
 * An image.
 *
 * @param pixels RGB, {@code [height, width, 3]}, one byte per value
 */
record Image(byte[] pixels, int width, int height) {
  static Image black(int width, int height) {
    return new Image(new byte[Math.multiplyExact(3, Math.multiplyExact(width, height))], width, height);
  }

  /** Return the middle of this image; where it is smaller, the rest is black. */
  Image cropMiddle(int newHeight, int newWidth) {
    Image result = black(newWidth, newHeight);
    int top = findStart(height, newHeight);
    int left = findStart(width, newWidth);
    int firstColumn = Math.max(0, left);
    int columns = Math.min(width, left + newWidth) - firstColumn;
    for (int y = Math.max(0, top); y < Math.min(height, top + newHeight); y++) {
      int from = (y * width + firstColumn) * 3;
      int to = ((y - top) * newWidth + firstColumn - left) * 3;
      System.arraycopy(pixels, from, result.pixels, to, columns * 3);
    }
    return result;
  }

  /** Return where the middle begins; it is negative if there is less than wanted. */
  private static int findStart(int length, int wanted) {
    return length < wanted ? -((wanted - length) / 2) : (int) Math.rint((length - wanted) / 2.0);
  }
}
