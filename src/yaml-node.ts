import { isMap, isScalar, isSeq, type ParsedNode, type YAMLMap } from 'yaml';
import { type ErrorCode, MeshError, type Place, quote } from './errors.ts';
import { closestName } from './yaml-suggest.ts';

/** A text being read, with the offset of each of its lines. Owned by `yaml.ts`. */
export type DocumentSource = {
  readonly file: string;
  readonly text: string;
  readonly firstLine: number;
  readonly lineStarts: readonly number[];
};

/** A field of a mapping. */
export type YamlField = { readonly key: string; readonly place: Place; readonly value: YamlNode };

/**
 * A value of a document that knows where it stands. Its readers return plain values of the type asked for, or throw
 * `document_field_type` with the place: nothing is converted, and an empty value is no value of any type.
 */
export class YamlNode {
  /** Where the value begins. */
  readonly place: Place;
  /** How many characters of the value stand on the line it begins on; at least 1. */
  readonly length: number;
  /** The way to it from the root, such as `spec.rules[0].from`; empty for the root. */
  readonly path: string;
  readonly #source: DocumentSource;
  readonly #node: ParsedNode;

  private constructor(source: DocumentSource, node: ParsedNode, path: string) {
    this.#source = source;
    this.#node = node;
    this.path = path;
    this.place = placeAt(source, node.range[0]);
    this.length = lengthOnLine(source, node.range[0], node.range[1]);
  }

  /** The root of a document that {@link checkTree} has passed. */
  static open(source: DocumentSource, node: ParsedNode): YamlNode {
    return new YamlNode(source, node, '');
  }

  /**
   * The value as a mapping that may have the given fields and no others.
   * @throws MeshError `document_field_type`, `document_field_unknown`
   */
  mapping(allowed: readonly string[]): YamlMapping {
    const fields = new Map<string, YamlField>();
    for (const field of this.entries()) {
      if (!allowed.includes(field.key)) throw this.#unknownField(field, allowed);
      fields.set(field.key, field);
    }
    return new YamlMapping(this, fields);
  }

  /**
   * The value as a mapping with free keys, in the order written; keys are unique.
   * @throws MeshError `document_field_type`
   */
  entries(): readonly YamlField[] {
    if (!isMap(this.#node)) throw this.#wrongType('a mapping');
    const fields: YamlField[] = [];
    for (const { key, value } of this.#node.items) {
      // checkTree has refused every other kind of key.
      const name = isScalar(key) ? String(key.value) : '';
      const path = joinPath(this.path, name);
      const place = placeAt(this.#source, key.range[0]);
      if (value === null) throw emptyField(place, path);
      fields.push({ key: name, place, value: new YamlNode(this.#source, value, path) });
    }
    return fields;
  }

  /** The value as a list, which may be empty. @throws MeshError `document_field_type` */
  sequence(): readonly YamlNode[] {
    if (!isSeq(this.#node)) throw this.#wrongType('a list');
    return this.#node.items.map((item, index) => new YamlNode(this.#source, item, `${this.path}[${index}]`));
  }

  /** The value as text, which may be empty. @throws MeshError `document_field_type` */
  string(): string {
    const value = isScalar(this.#node) ? this.#node.value : undefined;
    if (typeof value !== 'string') throw this.#wrongType('text');
    return value;
  }

  /** The value as a whole number that no digit is lost of. @throws MeshError `document_field_type` */
  integer(): number {
    const value = isScalar(this.#node) ? this.#node.value : undefined;
    if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw this.#wrongType('a whole number');
    return value;
  }

  /** The value as true or false. @throws MeshError `document_field_type` */
  boolean(): boolean {
    const value = isScalar(this.#node) ? this.#node.value : undefined;
    if (typeof value !== 'boolean') throw this.#wrongType('true or false');
    return value;
  }

  /** The value as plain data, for a reader to whom any is right. Mappings are Maps: their keys are anything. */
  data(): unknown {
    if (isMap(this.#node)) return new Map(this.entries().map(({ key, value }) => [key, value.data()]));
    if (isSeq(this.#node)) return this.sequence().map((item) => item.data());
    return isScalar(this.#node) ? this.#node.value : null;
  }

  /** An error at this value, for its reader to throw. The message goes on where the path ends: `is not a port`. */
  error(code: ErrorCode, message: string, fix: string): MeshError {
    return new MeshError(code, `${this.path === '' ? 'the document' : this.path} ${message}`, {
      place: this.place,
      fix,
    });
  }

  #wrongType(wanted: string): MeshError {
    const found = describeValue(this.#node);
    if (found === 'empty') return emptyField(this.place, this.path);
    const quoted = wanted === 'text' && (found === 'a number' || found === 'true or false');
    return this.error(
      'document_field_type',
      `must be ${wanted}, and is ${found}`,
      quoted ? 'put it in quotes' : `write ${wanted} here`,
    );
  }

  #unknownField(field: YamlField, allowed: readonly string[]): MeshError {
    const close = closestName(field.key, allowed);
    const where = this.path === '' ? 'the document' : this.path;
    return new MeshError('document_field_unknown', `${where} has no field ${quote(field.key)}`, {
      place: field.place,
      fix:
        close === undefined
          ? `remove it, or use one of ${allowed.join(', ')}`
          : `did you mean ${close}? write that, or remove it`,
    });
  }
}

/** The fields of a {@link YamlNode.mapping}. */
export class YamlMapping {
  readonly node: YamlNode;
  readonly #fields: ReadonlyMap<string, YamlField>;

  constructor(node: YamlNode, fields: ReadonlyMap<string, YamlField>) {
    this.node = node;
    this.#fields = fields;
  }

  /** How many fields were written. */
  get size(): number {
    return this.#fields.size;
  }

  /** @throws MeshError `document_field_missing` */
  required(name: string): YamlNode {
    const field = this.#fields.get(name);
    if (field !== undefined) return field.value;
    throw this.node.error('document_field_missing', `has no ${name}`, `add ${name}`);
  }

  /** The field's value, or undefined when it was not written. */
  optional(name: string): YamlNode | undefined {
    return this.#fields.get(name)?.value;
  }

  /** Where the name of the field stands, or the mapping when it was not written. */
  keyPlace(name: string): Place {
    return this.#fields.get(name)?.place ?? this.node.place;
  }
}

/**
 * Refuses what no reader of ours should ever meet, in the whole tree: duplicate keys, keys that are not text, merge
 * keys, integers that lose digits. The caller has bounded the depth.
 */
export function checkTree(source: DocumentSource, node: ParsedNode | null): void {
  if (isMap(node)) return checkMap(source, node);
  if (isSeq(node)) {
    for (const item of node.items) checkTree(source, item);
    return;
  }
  if (!isScalar(node) || typeof node.value !== 'number') return;
  if (Number.isInteger(node.value) && !Number.isSafeInteger(node.value)) {
    const at = node.range[0];
    throw new MeshError('document_field_type', 'the number is too large to be kept exactly', {
      place: placeAt(source, at),
      fix: 'put it in quotes',
    });
  }
}

function checkMap(source: DocumentSource, map: YAMLMap.Parsed): void {
  const seen = new Map<string, number>();
  for (const { key, value } of map.items) {
    const at = key.range[0];
    const place = placeAt(source, at);
    if (!isScalar(key) || typeof key.value !== 'string') {
      throw new MeshError('document_field_type', 'the name of a field must be text', {
        place,
        fix: 'put the name in quotes',
      });
    }
    if (key.value === '<<') {
      throw new MeshError('document_alias', 'merge keys (<<) are not accepted', {
        place,
        fix: 'write the fields out in full',
      });
    }
    const first = seen.get(key.value);
    if (first !== undefined) {
      const { line } = placeAt(source, first);
      throw new MeshError(
        'document_duplicate_key',
        `the field ${quote(key.value)} stands here and on line ${line}`,
        { place, fix: 'keep one of the two' },
      );
    }
    seen.set(key.value, at);
    checkTree(source, value);
  }
}

/** The place of an offset of the text. */
export function placeAt(source: DocumentSource, offset: number): Place {
  const { lineStarts } = source;
  let low = 0;
  let high = lineStarts.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((lineStarts[middle] ?? 0) <= offset) low = middle;
    else high = middle;
  }
  const start = lineStarts[low] ?? 0;
  return { file: source.file, line: source.firstLine + low, column: offset - start + 1 };
}

function lengthOnLine(source: DocumentSource, start: number, end: number): number {
  const newline = source.text.indexOf('\n', start);
  const stop = newline === -1 ? end : Math.min(end, newline);
  return Math.max(1, source.text.slice(start, stop).trimEnd().length);
}

function describeValue(node: ParsedNode): string {
  if (isMap(node)) return 'a mapping';
  if (isSeq(node)) return 'a list';
  const value: unknown = isScalar(node) ? node.value : undefined;
  if (typeof value === 'string') return 'text';
  if (typeof value === 'number') return 'a number';
  if (typeof value === 'boolean') return 'true or false';
  return 'empty';
}

function emptyField(place: Place, path: string): MeshError {
  return new MeshError('document_field_type', `${path === '' ? 'the document' : path} is empty`, {
    place,
    fix: 'give it a value, or remove the field',
  });
}

function joinPath(path: string, name: string): string {
  const plain = /^[A-Za-z0-9_-]{1,64}$/.test(name);
  if (!plain) return `${path}[${quote(name)}]`;
  return path === '' ? name : `${path}.${name}`;
}
