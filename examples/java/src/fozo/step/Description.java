package fozo.step;

import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** What step.json says, as far as these programs need it. */
record Description(
    Images images,
    Recipe preprocessing,
    List<String> classes,
    String logits,
    String valid,
    Map<String, String> diagnostics,
    List<Value> state,
    Map<String, String> files) {
  private static final int SCHEMA = 1;

  /** The input of the images: {@code [N, H, W, 3]}, in which N is a number or a name. */
  record Images(String input, List<JsonElement> shape) {}

  /** A value of the state. */
  record Value(String input, String output, String type, long[] shape) {}

  /**
   * Read step.json.
   *
   * @throws InputError the folder has none, or one of another schema
   */
  static Description read(Path folder) throws InputError {
    Path path = folder.resolve("step.json");
    JsonObject content = Files.readJson(path, "a folder that `fozo compile` has written", JsonObject.class);
    if (!content.has("schema") || content.get("schema").getAsInt() != SCHEMA) {
      throw new InputError(
          "%s: expected schema %d, found %s; compile the step again"
              .formatted(path, SCHEMA, content.get("schema")));
    }
    try {
      return new Gson().fromJson(content, Description.class);
    } catch (JsonParseException error) {
      throw new InputError(path + " is no description of a step: " + error.getMessage());
    }
  }

  /** Return height, width and 3. */
  int[] imageShape() {
    return images.shape.stream().skip(1).mapToInt(JsonElement::getAsInt).toArray();
  }

  /** Return the values of an image: height times width times 3. */
  int countPixels() {
    return imageShape()[0] * imageShape()[1] * 3;
  }

  /** Return the number of images for which the step is compiled; 0: any number. */
  int fixedBatch() {
    JsonElement first = images.shape.get(0);
    return first.getAsJsonPrimitive().isNumber() ? first.getAsInt() : 0;
  }

  /** Return the class of an index. */
  String nameClass(int label) {
    return classes == null ? Integer.toString(label) : classes.get(label);
  }
}
