"""Length-prefixed fields."""


class WireError(ValueError):
    pass


def u8(value):
    return value.to_bytes(1, "big")


def u16(value):
    return value.to_bytes(2, "big")


def u32(value):
    return value.to_bytes(4, "big")


def u64(value):
    return value.to_bytes(8, "big")


def opaque8(data):
    return u8(len(data)) + data


def opaque16(data):
    return u16(len(data)) + data


class Reader:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise WireError("truncated")
        out = self.data[self.at:self.at + count]
        self.at += count
        return out

    def integer(self, size):
        return int.from_bytes(self.take(size), "big")

    def _opaque(self, size, low, high, name):
        length = self.integer(size)
        if not low <= length <= high:
            raise WireError("%s has %d bytes" % (name, length))
        return self.take(length)

    def opaque8(self, low, high, name="a field"):
        return self._opaque(1, low, high, name)

    def opaque16(self, low, high, name="a field"):
        return self._opaque(2, low, high, name)

    def end(self):
        if self.at != len(self.data):
            raise WireError("%d bytes after the last field" % (len(self.data) - self.at))

    @property
    def left(self):
        return len(self.data) - self.at
