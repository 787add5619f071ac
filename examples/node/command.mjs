/** Arguments of the three programs, and their errors: one line, and exit status 1. */

import { basename } from "node:path";
import { parseArgs } from "node:util";

/** A mistake in what the user gave, with a message that says what to do. */
export class InputError extends Error {}

/**
 * Run a program and report its errors in one line.
 *
 * @param {string} usage arguments: those in brackets may be left out
 * @param {Record<string, {type: "string"}>} options names of options with a value, as `parseArgs` takes them
 * @param {(positionals: string[], options: Record<string, string>) => Promise<void>} main
 */
export async function runCommand(usage, options, main) {
  const name = basename(process.argv[1], ".mjs");
  try {
    const [positionals, values] = parse(`node ${name}.mjs ${usage}`, usage, options);
    await main(positionals, values);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    console.error(`${name}: ${error.message.replaceAll("\n", " ")}`);
    process.exitCode = 1;
  }
}

/**
 * Return a positive whole number, or the default where there is no text.
 *
 * @throws {InputError} the text is another thing
 */
export function parseCount(text, name, fallback) {
  if (text === undefined) return fallback;
  const count = Number(text);
  if (!Number.isSafeInteger(count) || count < 1) {
    throw new InputError(`${name}: expected a number from 1, found ${text}`);
  }
  return count;
}

function parse(call, usage, options) {
  const names = usage.match(/^[A-Z ]+/)[0].trim().split(" "); // those without brackets
  const most = names.length + (usage.match(/\[[A-Z]+\]/g) ?? []).length;
  let parsed;
  try {
    parsed = parseArgs({ options, allowPositionals: true });
  } catch (error) {
    throw new InputError(`${error.message}; expected: ${call}`);
  }
  const count = parsed.positionals.length;
  if (count < names.length || count > most) {
    throw new InputError(`found ${count} arguments; expected: ${call}`);
  }
  return [parsed.positionals, parsed.values];
}
