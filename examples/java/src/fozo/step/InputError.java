package fozo.step;

/** A mistake in what the user gave, with a message that says what to do. */
public final class InputError extends Exception {
  private static final long serialVersionUID = 1;

  public InputError(String message) {
    super(message);
  }
}
