/* A compiled step in C: see README.md. */

#include "commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct Command {
    const char *name, *usage;
    int least, most; /* numbers of arguments */
    void (*run)(const Options *options);
} commands[] = {
    {"adapt", "STEP PHOTOS [BATCH] [--state FILE] [--threads N]", 2, 3, adapt},
    {"verify", "STEP [--tolerance SHARE]", 1, 1, verify},
    {"digits", "STEP DIGITS [BATCH] [--threads N]", 2, 3, stream_digits},
    {"prepare", "STEP PHOTO > PREPARED.ppm", 2, 2, prepare},
};

size_t parse_count(const char *text, const char *name)
{
    if (!text)
        return 0;
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (errno || *end || number < 1 || number > 1000000)
        fail("expected a number from 1 to 1000000 for %s, found %s", name, text);
    return (size_t)number;
}

static double parse_share(const char *text, const char *name)
{
    char *end;
    double share = strtod(text, &end);
    if (*end || !(share >= 0 && share < 1))
        fail("expected a number from 0 to 1 for %s, found %s", name, text);
    return share;
}

static const struct Command *find_command(const char *name)
{
    for (size_t i = 0; name && i < sizeof commands / sizeof *commands; i++)
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    fail("expected a command: adapt, verify, digits or prepare; found %s", name ? name : "none");
}

static bool is_option(const char *text, const char *name, const struct Command *command)
{
    return strcmp(text, name) == 0 && strstr(command->usage, name);
}

int main(int argc, char **argv)
{
    const struct Command *command = find_command(argc > 1 ? argv[1] : NULL);
    Options options = {{NULL}, NULL, 0, 1e-4};
    int count = 0;
    for (int i = 2; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "nothing";
        if (strncmp(argv[i], "--", 2) != 0) {
            if (count < command->most)
                options.arguments[count] = argv[i];
            count++;
            continue;
        }
        if (is_option(argv[i], "--state", command))
            options.state = value;
        else if (is_option(argv[i], "--threads", command))
            options.threads = (int)parse_count(value, "--threads");
        else if (is_option(argv[i], "--tolerance", command))
            options.tolerance = parse_share(value, "--tolerance");
        else
            fail("found %s; expected: %s %s %s", argv[i], argv[0], command->name, command->usage);
        i++;
    }
    if (count < command->least || count > command->most)
        fail("found %d arguments; expected: %s %s %s", count, argv[0], command->name, command->usage);
    command->run(&options);
    return EXIT_SUCCESS;
}
