"""Templates: texts with `{}` for the name of a class, and the published ones for ImageNet."""

from __future__ import annotations

from ..errors import InputError, has_controls

PLACEHOLDER = "{}"
DEFAULT_TEMPLATE = "a photo of a {}."
MAX_TEMPLATES = 1000


def check_template(template: str) -> str:
    """Return a template without space around it.

    Raises:
        InputError: it has no `{}` or several, or control characters.
    """
    if template.count(PLACEHOLDER) != 1 or has_controls(template):
        raise InputError(
            f"expected a template in one line with one {PLACEHOLDER} for the name of the class, like "
            f"{DEFAULT_TEMPLATE!r}, found {template!r}"
        )
    return template.strip()


def check_templates(templates: tuple[str, ...]) -> tuple[str, ...]:
    """Return templates without space around them.

    Raises:
        InputError: there is none, or too many, or one twice, or one cannot be used.
    """
    checked = tuple(map(check_template, templates))
    if not 0 < len(checked) <= MAX_TEMPLATES:
        raise InputError(f"expected 1 to {MAX_TEMPLATES:,} templates, found {len(checked):,}")
    if repeated := next((text for text in checked if checked.count(text) > 1), None):
        raise InputError(f"expected different templates, found {repeated!r} twice")
    return checked


def split_template(template: str) -> tuple[str, str]:
    """Return the words in front of the name, which all classes share, and the text that has the name.

    >>> split_template('a photo of the "{}", seen from above.')
    ('a photo of the', '"{}", seen from above.')

    Raises:
        InputError: it is no template.
    """
    template = check_template(template)
    end = template.index(PLACEHOLDER)
    while end and not template[end - 1].isspace():
        end -= 1
    return template[:end].strip(), template[end:]
