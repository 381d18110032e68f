import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatPlace, MeshError } from '../../src/errors.ts';
import { maxDocumentBytes, readDocuments } from '../../src/yaml.ts';
import { closestName } from '../../src/yaml-suggest.ts';
import { startCpuWatch } from '../harness/cpu-watch.ts';

const head = 'apiVersion: v1\nkind: Thing\n';

function refusal(text: string): MeshError {
  try {
    readDocuments({ file: 'f.yaml', text });
  } catch (error) {
    if (error instanceof MeshError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('what a text may not have', () => {
  test.each<[string, string, string, string]>([
    ['an anchor', `${head}a: &x 1\n`, 'document_alias', 'f.yaml:3:4'],
    ['an alias', `${head}a: *x\n`, 'document_alias', 'f.yaml:3:4'],
    ['a merge key', `${head}<<: { a: 1 }\n`, 'document_alias', 'f.yaml:3:1'],
    ['a quoted merge key', `${head}"<<": { a: 1 }\n`, 'document_alias', 'f.yaml:3:1'],
    ['a tag of YAML', `${head}a: !!str 1\n`, 'document_syntax', 'f.yaml:3:4'],
    ['a custom tag', `${head}a: !js 1\n`, 'document_syntax', 'f.yaml:3:4'],
    ['a verbatim tag', `${head}a: !<tag:x> 1\n`, 'document_syntax', 'f.yaml:3:4'],
    ['a directive', `%YAML 1.1\n---\n${head}`, 'document_syntax', 'f.yaml:1:1'],
    ['a duplicate key', `${head}a: 1\nb: 2\na: 3\n`, 'document_duplicate_key', 'f.yaml:5:1'],
    ['a duplicate key in flow', `${head}a: { b: 1, "b": 2 }\n`, 'document_duplicate_key', 'f.yaml:3:12'],
    ['a duplicate __proto__', `${head}__proto__: 1\n__proto__: 2\n`, 'document_duplicate_key', 'f.yaml:4:1'],
    ['a number as key', `${head}1: a\n`, 'document_field_type', 'f.yaml:3:1'],
    ['a boolean as key', `${head}true: a\n`, 'document_field_type', 'f.yaml:3:1'],
    ['null as key', `${head}: a\n`, 'document_field_type', 'f.yaml:3:1'],
    ['a list as key', `${head}? [a]\n: b\n`, 'document_field_type', 'f.yaml:3:3'],
    ['an integer that loses digits', `${head}a: 9007199254740993\n`, 'document_field_type', 'f.yaml:3:4'],
    ['a tab as indentation', `${head}a:\n\tb: 1\n`, 'document_syntax', 'f.yaml:4:1'],
    ['an open quote', `${head}a: "x\n`, 'document_syntax', 'f.yaml:4:1'],
    ['an open list', `${head}a: [1, 2\n`, 'document_syntax', 'f.yaml:4:1'],
    ['a bad escape', `${head}a: "\\q"\n`, 'document_syntax', 'f.yaml:3:5'],
    ['NUL', `${head}a: \0\n`, 'document_syntax', 'f.yaml:3:4'],
    ['escape', `${head}a: \u001b[2J\n`, 'document_syntax', 'f.yaml:3:4'],
    ['a byte order mark', `\ufeff${head}`, 'document_syntax', 'f.yaml:1:1'],
    ['a byte order mark inside', `${head}a: \ufeffb\n`, 'document_syntax', 'f.yaml:3:4'],
    ['a right-to-left override', `${head}a: x\u202ey\n`, 'document_syntax', 'f.yaml:3:5'],
    ['a zero-width space', `${head}a: x\u200by\n`, 'document_syntax', 'f.yaml:3:5'],
    ['a line separator', `${head}a: x\u2028y\n`, 'document_syntax', 'f.yaml:3:5'],
    ['a lone carriage return', `${head}a: x\ry\n`, 'document_syntax', 'f.yaml:3:5'],
    ['half a surrogate pair', `${head}a: \ud800\n`, 'document_syntax', 'f.yaml:3:4'],
    ['33 levels', `${head}a: ${'['.repeat(32)}${']'.repeat(32)}\n`, 'document_depth', 'f.yaml:3:35'],
    ['10,000 levels of lists', `a: ${'['.repeat(10_000)}`, 'document_depth', 'f.yaml:1:35'],
    ['10,000 levels of mappings', '{a: '.repeat(10_000), 'document_depth', 'f.yaml:1:129'],
    ['10,000 levels on one line', '- '.repeat(10_000), 'document_depth', 'f.yaml:1:65'],
    ['10,000 levels of complex keys', '? '.repeat(10_000), 'document_depth', 'f.yaml:1:65'],
    ['2 MiB', 'x'.repeat(2 * maxDocumentBytes), 'document_too_large', 'f.yaml:1:1'],
    ['1 MiB counted in bytes', 'é'.repeat(maxDocumentBytes / 2 + 1), 'document_too_large', 'f.yaml:1:1'],
    ['10,001 documents', '---\n'.repeat(10_002), 'document_too_large', 'f.yaml:10002:1'],
    ['600,000 line breaks', '\n'.repeat(600_000), 'document_too_large', 'f.yaml:300001:1'],
    ['a list at the root', '- a\n', 'document_field_type', 'f.yaml:1:1'],
    ['text at the root', 'abc\n', 'document_field_type', 'f.yaml:1:1'],
    ['empty text at the root', '--- ""\n', 'document_field_type', 'f.yaml:1:5'],
    ['null at the root', '--- ~\n', 'document_field_type', 'f.yaml:1:5'],
    ['no kind', 'apiVersion: v1\n', 'document_field_missing', 'f.yaml:1:1'],
    ['no apiVersion', 'kind: Thing\n', 'document_field_missing', 'f.yaml:1:1'],
    ['an empty kind', 'apiVersion: v1\nkind:\n', 'document_field_type', 'f.yaml:2:6'],
    ['a number as kind', 'apiVersion: v1\nkind: 1\n', 'document_field_type', 'f.yaml:2:7'],
    ['an error in the second document', `${head}---\n${head}a: [\n`, 'document_syntax', 'f.yaml:7:1'],
  ])('%s', (_name, text, code, place) => {
    const error = refusal(text);
    expect([error.code, error.place && formatPlace(error.place)]).toEqual([code, place]);
    expect(error.fix).toBeTruthy();
    expect(error.message).toMatch(/^[^A-Z].*[^.]$/s);
  });

  test('a billion laughs are refused at the first anchor', () => {
    const lines = ['a: &a ["lol","lol"]'];
    for (let i = 1; i < 30; i++) lines.push(`a${i}: &a${i} [*a${i - 1 || ''},*a${i - 1 || ''}]`);
    expect(refusal(lines.join('\n')).code).toBe('document_alias');
  });

  // Each took the library seconds before limits and the first error were enforced while reading.
  test.each<[string, string]>([
    ['stray commas', `a: [${','.repeat(1_000_000)}`],
    ['stray brackets', '[]'.repeat(500_000)],
    ['closing brackets', ']'.repeat(1_000_000)],
    ['bad escapes', `a: "${'\\q'.repeat(500_000)}"`],
    ['many keys', `${head}${Array.from({ length: 40_000 }, (_, i) => `k${i}: 1`).join('\n')}\nk1: 2\n`],
    ['dashes', '-\n'.repeat(500_000)],
  ])('a megabyte of %s is refused within seconds', (_name, text) => {
    const usedMs = startCpuWatch();
    expect(refusal(text).code).toMatch(/^document_/);
    expect(usedMs()).toBeLessThan(15_000);
  });
});

describe('documents', () => {
  test('are cut out as written, without what stands between them', () => {
    const text = `# header\n---\n${head}\n---\n\n# of the second\napiVersion: v1\nkind: Second # why\n\n\n...\n---\n# nothing\n---\napiVersion: v1\nkind: Third`;
    expect(readDocuments({ file: 'f', text }).map(({ kind, line, text }) => ({ kind, line, text }))).toEqual([
      { kind: 'Thing', line: 1, text: `# header\n---\n${head}` },
      { kind: 'Second', line: 8, text: '# of the second\napiVersion: v1\nkind: Second # why\n' },
      { kind: 'Third', line: 17, text: 'apiVersion: v1\nkind: Third\n' },
    ]);
  });

  test.each<[string, string]>([
    ['nothing', ''],
    ['comments', '# a\n---\n# b\n...\n'],
    ['blank lines', '\n\n'],
  ])('%s holds none', (_name, text) => {
    expect(readDocuments({ file: 'f', text })).toEqual([]);
  });

  test('Windows line ends read the same', () => {
    const [document] = readDocuments({
      file: 'f',
      text: `${head}spec:\n  a: [x, y]\n`.replaceAll('\n', '\r\n'),
    });
    const spec = document?.root
      .mapping(['apiVersion', 'kind', 'spec'])
      .required('spec')
      .mapping(['a'])
      .required('a');
    expect([spec?.sequence().map((item) => item.string()), spec?.place.line]).toEqual([['x', 'y'], 4]);
  });

  test('read again from their own text, they keep their places', () => {
    const document = fc.record({
      blank: fc.nat(3),
      comment: fc.boolean(),
      marker: fc.boolean(),
      keys: fc.nat(3),
    });
    fc.assert(
      fc.property(fc.array(document, { minLength: 1, maxLength: 5 }), (shapes) => {
        const text = shapes
          .map(({ blank, comment, marker, keys }, i) => {
            const body = Array.from({ length: keys }, (_, k) => `k${k}: [a, b]\n`).join('');
            const start = i > 0 || marker ? '---\n' : '';
            return `${start}${'\n'.repeat(blank)}${comment ? '# c\n' : ''}${head}${body}${'\n'.repeat(blank)}`;
          })
          .join('');
        const documents = readDocuments({ file: 'f', text });
        expect(documents.length).toBe(shapes.length);
        for (const one of documents) {
          const again = readDocuments({ file: 'f', text: one.text, firstLine: one.line });
          expect(again.map(({ text, line }) => ({ text, line }))).toEqual([
            { text: one.text, line: one.line },
          ]);
          const placesOf = (document: typeof one) =>
            document.root.entries().map(({ key, place, value }) => [key, place, value.place]);
          expect(again.map(placesOf)).toEqual([placesOf(one)]);
        }
      }),
    );
  });

  test('any text at all is read or refused with a place', () => {
    const piece = fc.constantFrom(
      ...[
        'a',
        ': ',
        '- ',
        '\n',
        '  ',
        '[',
        ']',
        '{',
        '}',
        ',',
        '"',
        "'",
        '#',
        '|',
        '>',
        '&x',
        '*x',
        '!t',
        '---\n',
        '? ',
        '\t',
        '%',
        '<<',
        '\r',
      ],
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ unit: 'binary' }),
          fc.array(piece).map((p) => p.join('')),
        ),
        (text) => {
          try {
            readDocuments({ file: 'f', text: head + text });
          } catch (error) {
            if (!(error instanceof MeshError)) throw error;
            expect(error.place).toBeDefined();
            expect(error.kind).not.toBe('internal');
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('fields', () => {
  const read = (body: string) => {
    const [document] = readDocuments({ file: 'f.yaml', text: `${head}spec:\n${body}` });
    if (document === undefined) throw new Error('no document');
    return document.root.mapping(['apiVersion', 'kind', 'spec']).required('spec');
  };
  const caught = (run: () => unknown): MeshError => {
    try {
      run();
    } catch (error) {
      if (error instanceof MeshError) return error;
      throw error;
    }
    throw new Error('nothing was refused');
  };

  test.each<[string, () => unknown, string, string, string]>([
    [
      'a mistyped field',
      () => read('  pathes: 1\n').mapping(['paths', 'ports']),
      'document_field_unknown',
      'f.yaml:4:3',
      'paths',
    ],
    [
      'an unlike field',
      () => read('  zzz: 1\n').mapping(['paths', 'ports']),
      'document_field_unknown',
      'f.yaml:4:3',
      'paths, ports',
    ],
    [
      '__proto__',
      () => read('  __proto__: { a: 1 }\n').mapping(['a']),
      'document_field_unknown',
      'f.yaml:4:3',
      'remove',
    ],
    [
      'constructor',
      () => read('  constructor: 1\n').mapping(['a']),
      'document_field_unknown',
      'f.yaml:4:3',
      'remove',
    ],
    [
      'a missing field',
      () => read('  a: 1\n').mapping(['a', 'b']).required('b'),
      'document_field_missing',
      'f.yaml:4:3',
      'add b',
    ],
    [
      'an empty field',
      () => read('  a:\n').mapping(['a']).required('a').sequence(),
      'document_field_type',
      'f.yaml:4:5',
      'value',
    ],
    [
      'a number for text',
      () => read('  a: 1\n').mapping(['a']).required('a').string(),
      'document_field_type',
      'f.yaml:4:6',
      'quotes',
    ],
    [
      'text for a number',
      () => read('  a: "1"\n').mapping(['a']).required('a').integer(),
      'document_field_type',
      'f.yaml:4:6',
      'whole',
    ],
    [
      'a fraction',
      () => read('  a: 1.5\n').mapping(['a']).required('a').integer(),
      'document_field_type',
      'f.yaml:4:6',
      'whole',
    ],
    [
      'infinity',
      () => read('  a: .inf\n').mapping(['a']).required('a').integer(),
      'document_field_type',
      'f.yaml:4:6',
      'whole',
    ],
    [
      'yes for true',
      () => read('  a: yes\n').mapping(['a']).required('a').boolean(),
      'document_field_type',
      'f.yaml:4:6',
      'true or false',
    ],
    [
      'text for a list',
      () => read('  a: x\n').mapping(['a']).required('a').sequence(),
      'document_field_type',
      'f.yaml:4:6',
      'list',
    ],
    [
      'a list for a mapping',
      () => read('  a: []\n').mapping(['a']).required('a').entries(),
      'document_field_type',
      'f.yaml:4:6',
      'mapping',
    ],
  ])('%s is refused', (_name, run, code, place, fix) => {
    const error = caught(run);
    expect([error.code, error.place && formatPlace(error.place)]).toEqual([code, place]);
    expect(error.fix).toContain(fix);
  });

  test('know their way and their length', () => {
    const [item] = read('  a:\n    - b: [x, yz]  # note\n').mapping(['a']).required('a').sequence();
    const node = item?.mapping(['b']).required('b');
    expect([node?.path, node?.length, node?.place.column]).toEqual(['spec.a[0].b', 7, 10]);
  });
});

test.each<[string, string | undefined]>([
  ['pathes', 'paths'],
  ['Paths', 'paths'],
  ['mehtods', 'methods'],
  ['xs', undefined],
  ['x'.repeat(1_000_000), undefined],
])('closest name', (typed, name) => {
  expect(closestName(typed, ['paths', 'methods', 'to'])).toBe(name);
});
