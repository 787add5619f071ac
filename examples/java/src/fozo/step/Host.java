package fozo.step;

import ai.onnxruntime.OrtException;
import java.io.IOException;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/** The command line: three programs, whose errors are one line and exit status 1. */
public final class Host {
  private interface Program {
    void run(Arguments arguments) throws Exception;
  }

  private static final Map<String, Program> PROGRAMS =
      Map.of("adapt", Adapt::run, "verify", Verify::run, "digits", Digits::run);
  private static final Map<String, String> USAGES =
      Map.of("adapt", Adapt.USAGE, "verify", Verify.USAGE, "digits", Digits.USAGE);

  private Host() {}

  public static void main(String[] words) throws Exception {
    List<String> line = Arrays.asList(words);
    String name = line.isEmpty() ? "" : line.get(0);
    try {
      if (!PROGRAMS.containsKey(name)) {
        throw new InputError("expected adapt, verify or digits, found '%s'".formatted(name));
      }
      PROGRAMS.get(name).run(Arguments.read(USAGES.get(name), line.subList(1, line.size())));
    } catch (InputError error) {
      fail(name, error.getMessage());
    } catch (OrtException error) {
      fail(name, "ONNX Runtime has failed: " + error.getMessage());
    } catch (IOException error) { // its message may be a path alone
      fail(name, error.toString());
    }
  }

  private static void fail(String name, String message) {
    System.err.println(name + ": " + message.replace('\n', ' '));
    System.exit(1);
  }
}
