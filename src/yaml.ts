import { Composer, CST, type Document, Lexer, Parser } from 'yaml';
import { MeshError, type Place, quote } from './errors.ts';
import { checkTree, type DocumentSource, placeAt, YamlNode } from './yaml-node.ts';

/** The largest text read, in bytes of UTF-8. */
export const maxDocumentBytes = 1_048_576;
/** The deepest nesting of lists and mappings. */
export const maxDocumentDepth = 32;
/** The most documents in one text. */
export const maxDocuments = 10_000;
/** The most lexemes in one text: what reading costs grows with these, and a MiB of line breaks has a million. */
const maxLexemes = 300_000;

/** A text to read. `firstLine` (one-based, default 1) is the line it begins on in `file`, so that places point there. */
export type YamlText = { readonly file: string; readonly text: string; readonly firstLine?: number };

/** One document that says what it is. */
export type YamlDocument = {
  readonly file: string;
  readonly apiVersion: string;
  readonly kind: string;
  /**
   * The lines of this one document as written, without the `---` line before it and the blank lines around it. Reading
   * it again with `firstLine: line` gives the same document with the same places.
   */
  readonly text: string;
  /** The one-based line of the file on which `text` begins. */
  readonly line: number;
  /** A mapping; `apiVersion` and `kind` are fields of it, so name them when you read it. */
  readonly root: YamlNode;
};

/**
 * Reads a text of YAML 1.2 documents, strictly: no aliases, anchors, tags, directives, merge keys, duplicate keys,
 * keys that are no strings, integers that lose digits, byte order marks, or characters that hide or reorder text.
 * At most 1 MiB, 10,000 documents, 300,000 lexemes,
 * 32 levels. Documents without content are skipped; every other one has the text
 * fields `apiVersion` and `kind`. Nothing is returned unless all of it can be read.
 * @throws MeshError with its place and a fix: `document_too_large`, `document_syntax`, `document_alias`,
 * `document_depth`, `document_duplicate_key`, `document_field_type`, `document_field_missing`
 */
export function readDocuments(input: YamlText): readonly YamlDocument[] {
  const steps = readInSteps(input);
  for (let step = steps.next(); ; step = steps.next()) if (step.done === true) return step.value;
}

/**
 * The same in steps of well under a millisecond, so that whoever runs it may let others run in between: a long text takes
 * half a second. @throws MeshError as {@link readDocuments}
 */
export function* readInSteps(input: YamlText): Generator<void, readonly YamlDocument[]> {
  const source = openSource(input);
  checkCharacters(source);
  const parts = yield* splitDocuments(source);
  const documents: YamlDocument[] = [];
  for (const part of parts) {
    yield;
    const document = describe(source, part);
    if (document !== undefined) documents.push(document);
  }
  return documents;
}

const lexemesInStep = 64;

type Part = { readonly document: Document.Parsed; readonly start: number; readonly end: number };

function openSource({ file, text, firstLine = 1 }: YamlText): DocumentSource {
  // The first comparison spares us from measuring a text of gigabytes.
  if (text.length > maxDocumentBytes || Buffer.byteLength(text) > maxDocumentBytes) {
    throw new MeshError('document_too_large', `${quote(file)} is larger than ${maxDocumentBytes} bytes`, {
      place: { file, line: firstLine, column: 1 },
      fix: 'split it into several files',
    });
  }
  const lineStarts = [0];
  for (let at = text.indexOf('\n'); at !== -1; at = text.indexOf('\n', at + 1)) lineStarts.push(at + 1);
  return { file, text, firstLine, lineStarts };
}

function checkCharacters(source: DocumentSource): void {
  const bad = forbiddenCharacter.exec(source.text);
  if (bad === null) return;
  const code = bad[0].codePointAt(0) ?? 0;
  const name = `U+${code.toString(16).toUpperCase().padStart(4, '0')}`;
  const what =
    code === 0xfeff ? 'a byte order mark' : `the character ${name}, which is not printable or reorders text`;
  throw new MeshError('document_syntax', `the document contains ${what}`, {
    place: placeAt(source, bad.index),
    fix:
      code === 0xfeff ? 'save the file as UTF-8 without a byte order mark' : `remove the character ${name}`,
  });
}

/**
 * What YAML calls not printable (YAML 1.2.2 section 5.1), line breaks that readers count differently, and the
 * bidirectional controls that let a reviewer read another policy than the one that is enforced.
 */
const forbiddenCharacter =
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffe\uffff]|\r(?!\n)|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;

/** Feeds the lexer's tokens to the parser one by one, so that limits hold before anything recursive sees the tree. */
function* splitDocuments(source: DocumentSource): Generator<void, readonly Part[]> {
  const parser = new Parser();
  const { composer, check } = openComposer(source);
  const bounds: { start: number; end: number }[] = [];
  const parts: Part[] = [];
  let start = 0;
  const compose = (tokens: Iterable<Parameters<Composer['next']>[0]>): void => {
    for (const token of tokens) {
      if (token.type === 'error') refuseSyntax(source, token.offset, token.message);
      if (token.type === 'document') {
        if (bounds.length === maxDocuments) {
          refuseSize(source, parser.offset, `there are more than ${maxDocuments} documents`);
        }
        bounds.push({ start, end: parser.offset });
        start = parser.offset;
      }
      collect(composer.next(token));
      check();
    }
  };
  const collect = (documents: Iterable<Document.Parsed>): void => {
    for (const document of documents) {
      const bound = bounds[parts.length];
      if (bound !== undefined) parts.push({ document, ...bound });
    }
  };
  let atScalar = false;
  let lexemes = 0;
  for (const lexeme of new Lexer().lex(source.text)) {
    const at = parser.offset;
    lexemes += 1;
    if (lexemes % lexemesInStep === 0) yield;
    if (lexemes > maxLexemes) refuseSize(source, at, `the text has more than ${maxLexemes} words and signs`);
    // The lexer announces plain and block text with a marker; the lexeme after it may look like anything.
    if (!atScalar) refuseToken(source, CST.tokenType(lexeme), at);
    atScalar = lexeme === CST.SCALAR;
    compose(parser.next(lexeme));
    checkDepth(source, parser, at);
  }
  compose(parser.end());
  collect(composer.end());
  check();
  return parts;
}

/** A composer that keeps the first error it meets; `check` throws it. */
function openComposer(source: DocumentSource): { composer: Composer; check: () => void } {
  // Our own check for duplicate keys is linear; the library's compares every pair.
  const composer = new Composer({ uniqueKeys: false, merge: false, version: '1.2', schema: 'core' });
  let first: { readonly at: number; readonly message: string } | undefined;
  // The library would collect an error object, with its stack, for each of a million stray commas. The property is
  // not in its types; a test holds that such a text is refused, and soon.
  const hooks = composer as unknown as {
    onError: (
      at: number | readonly [number, number] | { offset: number },
      code: string,
      message: string,
    ) => void;
  };
  hooks.onError = (at, _code, message) => {
    if (first !== undefined) return;
    first = { at: typeof at === 'number' ? at : 'offset' in at ? at.offset : at[0], message };
  };
  const check = (): void => {
    if (first !== undefined) refuseSyntax(source, first.at, first.message);
  };
  return { composer, check };
}

function refuseSize(source: DocumentSource, at: number, message: string): never {
  throw new MeshError('document_too_large', message, {
    place: placeAt(source, at),
    fix: 'split it into several files',
  });
}

function refuseToken(source: DocumentSource, type: CST.TokenType | null, at: number): void {
  const what = refusedTokens.get(type ?? '');
  if (what === undefined) return;
  const code = type === 'alias' || type === 'anchor' ? 'document_alias' : 'document_syntax';
  throw new MeshError(code, `${what} are not accepted`, {
    place: placeAt(source, at),
    fix: 'write the value out in full',
  });
}

const refusedTokens = new Map([
  ['alias', 'aliases (*name)'],
  ['anchor', 'anchors (&name)'],
  ['tag', 'tags (!name)'],
  ['directive-line', 'directives (%NAME)'],
]);

function checkDepth(source: DocumentSource, parser: Parser, at: number): void {
  const { stack } = parser;
  const top = stack.at(-1);
  // The bottom of the stack is the document; the top may be a scalar, which is no level.
  const levels = stack.length - 1 - (top !== undefined && !collections.has(top.type) ? 1 : 0);
  if (levels <= maxDocumentDepth) return;
  throw new MeshError('document_depth', `the document is nested deeper than ${maxDocumentDepth} levels`, {
    place: placeAt(source, at),
    fix: 'flatten it',
  });
}

const collections = new Set(['block-map', 'block-seq', 'flow-collection']);

function refuseSyntax(source: DocumentSource, at: number, message: string): never {
  const why = message.split('\n', 1)[0] ?? '';
  const tabs = /\btabs?\b/i.test(why);
  throw new MeshError('document_syntax', `this is not valid YAML: ${quote(why)}`, {
    place: placeAt(source, at),
    fix: tabs ? 'indent with spaces' : 'correct the YAML at this place',
  });
}

function describe(source: DocumentSource, part: Part): YamlDocument | undefined {
  const { document } = part;
  const { contents } = document;
  if (contents === null || isBlank(contents)) return undefined;
  checkTree(source, contents);
  const root = YamlNode.open(source, contents);
  const fields = root.entries();
  const field = (name: string): YamlNode => {
    const found = fields.find(({ key }) => key === name);
    if (found !== undefined) return found.value;
    throw new MeshError('document_field_missing', `the document has no ${name}`, {
      place: root.place,
      fix: `add ${name}`,
    });
  };
  const apiVersion = field('apiVersion').string();
  const kind = field('kind').string();
  const { text, start } = cutText(source.text, part);
  const place: Place = placeAt(source, start);
  return { file: source.file, apiVersion, kind, text, line: place.line, root };
}

/** True for the empty node between two `---`; an explicit `null` or `""` is content, of the wrong type. */
function isBlank(contents: NonNullable<Document.Parsed['contents']>): boolean {
  return 'type' in contents && contents.type === 'PLAIN' && contents.source === '';
}

/** Drops the lines around a document that are not its own: `...` and blank ones before it, and its bare `---`. */
function cutText(text: string, part: Part): { text: string; start: number } {
  let { start } = part;
  while (start < part.end) {
    const newline = text.indexOf('\n', start);
    const next = newline === -1 || newline >= part.end ? part.end : newline + 1;
    if (!/^(?:---|\.\.\.)?[ \t]*(?:[ \t]#.*)?\r?\n?$/.test(text.slice(start, next))) break;
    start = next;
  }
  return { text: `${text.slice(start, part.end).trimEnd()}\n`, start };
}
