package fozo.step;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;

/** Adapt to photos: a line has a name, a class, and the mean entropy of the stream up to its batch. */
final class Adapt {
  static final String USAGE = "adapt STEP PHOTOS [BATCH] [--state FILE] [--threads N]";

  private Adapt() {}

  static void run(Arguments arguments) throws Exception {
    try (Step step = new Step(arguments.path(0), arguments.threads())) {
      int batch = step.chooseBatch(arguments.batch());
      List<Path> photos = Photos.list(arguments.path(1));
      String file = arguments.options().get("--state");
      State state =
          file != null && Files.exists(Path.of(file))
              ? StateFile.load(step.description, Path.of(file))
              : step.firstState();
      if (file != null) {
        StateFile.save(state, Path.of(file)); // what cannot be stored fails now, not after the stream
      }
      double entropy = 0;
      int unlearnt = 0;
      for (int start = 0; start < photos.size(); start += batch) {
        List<Path> paths = photos.subList(start, Math.min(start + batch, photos.size()));
        byte[] pixels = Photos.read(paths, step.description.preprocessing());
        Step.Prediction prediction = step.run(step.fillBatch(pixels), state);
        state.close();
        state = prediction.next();
        entropy += (prediction.entropy() - entropy) * paths.size() / (start + paths.size());
        unlearnt += prediction.valid() ? 0 : paths.size();
        print(step.description, paths, prediction.labels(), entropy);
      }
      if (unlearnt > 0) {
        throw new InputError(
            ("nothing was learnt from %d of %d photos: the state is of another step, or not finite; "
                    + "start again from the first one")
                .formatted(unlearnt, photos.size()));
      }
      if (file != null) {
        StateFile.save(state, Path.of(file));
      }
      state.close();
    }
  }

  private static void print(Description description, List<Path> paths, int[] labels, double entropy) {
    for (int index = 0; index < paths.size(); index++) {
      String name = paths.get(index).getFileName().toString();
      String entropyText = String.format(Locale.ROOT, "%.4f", entropy);
      System.out.println(name + "\t" + description.nameClass(labels[index]) + "\t" + entropyText);
    }
  }
}
