package fozo.step;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The words of a command line.
 *
 * @param words those that are no options
 * @param options by name, such as {@code --threads}
 */
record Arguments(List<String> words, Map<String, String> options) {
  private static final Pattern OPTION = Pattern.compile("\\[(--[a-z]+) [A-Z]+\\]");
  private static final Pattern OPTIONAL = Pattern.compile("\\[[A-Z]+\\]");

  /**
   * Read a command line by its usage, in which words in brackets may be left out.
   *
   * @throws InputError it has other words
   */
  static Arguments read(String usage, List<String> line) throws InputError {
    List<String> known = OPTION.matcher(usage).results().map(match -> match.group(1)).toList();
    List<String> words = new ArrayList<>();
    Map<String, String> options = new HashMap<>();
    for (int index = 0; index < line.size(); index++) {
      String word = line.get(index);
      if (!word.startsWith("--")) {
        words.add(word);
      } else if (known.contains(word) && index + 1 < line.size()) {
        options.put(word, line.get(++index));
      } else {
        throw new InputError("%s: unknown, or without a value; expected: %s".formatted(word, usage));
      }
    }
    Matcher optional = OPTIONAL.matcher(usage);
    int least = usage.split(" \\[")[0].split(" ").length - 1; // the first word is the name of the program
    if (words.size() < least || words.size() > least + optional.results().count()) {
      throw new InputError("found %d arguments; expected: %s".formatted(words.size(), usage));
    }
    return new Arguments(words, options);
  }

  Path path(int index) {
    return Path.of(words.get(index));
  }

  /** Return the number of images that is asked for, or 0. */
  int batch() throws InputError {
    return words.size() < 3 ? 0 : parseCount("BATCH", words.get(2));
  }

  /** Return the number of threads that is asked for, or 0. */
  int threads() throws InputError {
    return options.containsKey("--threads") ? parseCount("--threads", options.get("--threads")) : 0;
  }

  private static int parseCount(String name, String text) throws InputError {
    if (!text.matches("[1-9][0-9]{0,5}")) {
      throw new InputError("%s: expected a number from 1, found %s".formatted(name, text));
    }
    return Integer.parseInt(text);
  }
}
