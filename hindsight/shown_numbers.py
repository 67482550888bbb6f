"""Numbers as people read them: three digits and a power of 1000."""

KILO = 1000


def short(number: float) -> str:
    """Write a number with three digits and its power of 1000: 124M, 2.5G."""
    for unit in ("", "k", "M", "G", "T", "P", "E", "Z"):
        if abs(number) < KILO - 0.5 or unit == "Z":
            break
        number /= KILO
    digits = 0 if abs(number) >= 99.95 or (unit == "" and number == int(number)) else 1 if abs(number) >= 9.995 else 2
    return f"{number:.{digits}f}{unit}"


def size(n_bytes: float) -> str:
    """Write bytes with three digits: 1.49 GB."""
    text = short(n_bytes)
    return f"{text[:-1]} {text[-1]}B" if text[-1].isalpha() else f"{text} B"
