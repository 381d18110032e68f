/** A field of bytes, text or a message: for messages that the generated encoders do not write. */
export function field(number: number, value: Uint8Array | string): Buffer {
  const bytes = Buffer.from(value as string);
  return Buffer.concat([varint((number << 3) | 2), varint(bytes.length), bytes]);
}

/** Objects of text and of further objects, all names kept. */
export type StructInput = { readonly [name: string]: string | StructInput };

/** The bytes of envoy.config.core.v3.Metadata; `__proto__` is a name like any other. */
export function metadataBytes(filters: { readonly [filter: string]: StructInput }): Buffer {
  const entries = Object.entries(filters);
  return Buffer.concat(entries.map(([name, held]) => field(1, entry(name, struct(held)))));
}

function struct(held: StructInput): Buffer {
  return Buffer.concat(
    Object.entries(held).map(([name, value]) =>
      field(1, entry(name, typeof value === 'string' ? field(3, value) : field(5, struct(value)))),
    ),
  );
}

function entry(name: string, value: Buffer): Buffer {
  return Buffer.concat([field(1, name), field(2, value)]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let left = value; ; left >>>= 7) {
    bytes.push(left < 0x80 ? left : (left & 0x7f) | 0x80);
    if (left < 0x80) return Buffer.from(bytes);
  }
}
