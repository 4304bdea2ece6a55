// Owns how a stream of pictures is taken apart: multipart/x-mixed-replace, whose parts say how long they are.

const HEAD_END = [13, 10, 13, 10];

/**
 * Yields the parts of a stream.
 * @param stream The body of a response.
 * @returns `{headers, data}`: a Map of names in lower case, and a Uint8Array.
 */
export async function* readParts(stream) {
  const reader = stream.getReader();
  let bytes = new Uint8Array(0);
  const more = async () => {
    const { value, done } = await reader.read();
    if (!done) bytes = joined(bytes, value);
    return !done;
  };
  try {
    for (;;) {
      let end;
      while ((end = headEnd(bytes)) < 0) if (!(await more())) return;
      const headers = readHeaders(bytes.subarray(0, end));
      const begin = end + HEAD_END.length;
      const length = Number(headers.get("content-length"));
      while (bytes.length < begin + length) if (!(await more())) return;
      const data = bytes.slice(begin, begin + length);
      bytes = bytes.slice(begin + length);
      yield { headers, data };
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function headEnd(bytes) {
  for (let at = 0; at + HEAD_END.length <= bytes.length; at += 1) {
    if (HEAD_END.every((value, offset) => bytes[at + offset] === value)) return at;
  }
  return -1;
}

/** The boundary before a part stands among its headers, and is none. */
function readHeaders(bytes) {
  const lines = new TextDecoder("latin1").decode(bytes).split("\r\n");
  return new Map(lines.filter((line) => line.includes(": ")).map((line) => {
    const at = line.indexOf(": ");
    return [line.slice(0, at).toLowerCase(), line.slice(at + 2)];
  }));
}

function joined(one, other) {
  const both = new Uint8Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}
