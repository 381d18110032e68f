import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { checkNode } from '../../src/cli/run.ts';
import { describe, expect, test } from 'vitest';
import { summarise } from '../../src/cli/audit-summary.ts';
import { exitCodeOf, formatFailure, formatFailureJson } from '../../src/cli/failure.ts';
import { formatTable, printable, printableJson, printableLines } from '../../src/cli/text.ts';
import { MeshError } from '../../src/errors.ts';

const hostile = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/;

test('no text reaches a terminal with control or bidirectional characters', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 60 }), (text) => {
      expect(printable(text)).not.toMatch(/\n/);
      expect(printable(text)).not.toMatch(hostile);
      expect(printableLines(text)).not.toMatch(hostile);
      expect(JSON.parse(printableJson({ text }))).toEqual({ text });
      expect(printableJson({ text })).not.toMatch(hostile);
    }),
  );
});

test.each([
  ['\u001b[2Jgone', '\\u001b[2Jgone'],
  ['a\r\nb', 'a\\u000d\\u000ab'],
  ['\u009b31m', '\\u009b31m'],
  ['a\u202eb', 'a\\u202eb'],
  ['a\tb', 'a\tb'],
  ['Zürich', 'Zürich'],
])('%j prints as %j', (text, expected) => {
  expect(printable(text)).toBe(expected);
});

test('tables align, and a cell cannot start a line', () => {
  const rows = [
    ['web', 'ready', ''],
    ['a-long-name', 'x\ny', 'last'],
  ];
  expect(formatTable(['NAME', 'STATE', 'NOTE'], rows)).toBe(
    'NAME         STATE     NOTE\nweb          ready\na-long-name  x\\u000ay  last\n',
  );
});

test('an empty table is its headings', () => {
  expect(formatTable(['A', 'B'], [])).toBe('A  B\n');
});

describe('failures', () => {
  const stream = new PassThrough() as unknown as NodeJS.WriteStream;
  const error = new MeshError('policy_unsupported', 'when is not supported yet', {
    place: { file: 'mesh.yaml', line: 2, column: 5 },
    fix: 'remove it',
  });

  test('show the line and a caret when the text is at hand', () => {
    expect(formatFailure(error, new Map([['mesh.yaml', 'spec:\n    when: []\n']]), stream)).toBe(
      [
        'error[policy_unsupported]: when is not supported yet',
        ' --> mesh.yaml:2:5',
        ' 2 |     when: []',
        '   |     ^',
        'fix: remove it',
        '',
      ].join('\n'),
    );
  });

  test.each([
    ['another file', new Map([['other.yaml', 'a\nb\n']])],
    ['a shorter text', new Map([['mesh.yaml', 'a']])],
    ['an endless line', new Map([['mesh.yaml', `a\n${'b'.repeat(10_000)}`]])],
  ])('show only the place with %s', (_, texts) => {
    expect(formatFailure(error, texts, stream).split('\n')).toHaveLength(4);
  });

  test('as JSON are one object on one line', () => {
    const text = formatFailureJson(error);
    expect(text.trimEnd()).not.toContain('\n');
    expect(JSON.parse(text)).toEqual({
      error: {
        code: 'policy_unsupported',
        message: 'when is not supported yet',
        place: { file: 'mesh.yaml', line: 2, column: 5 },
        fix: 'remove it',
        exitCode: 2,
      },
    });
  });

  test.each([
    [new MeshError('usage', ''), 64],
    [new MeshError('entry_invalid', ''), 2],
    [new MeshError('entry_not_found', ''), 2],
    [new MeshError('revision_conflict', ''), 2],
    [new MeshError('store_locked', ''), 2],
    [new MeshError('server_unreachable', ''), 69],
    [new MeshError('shutting_down', ''), 69],
    [new MeshError('platform_unsupported', ''), 69],
    [new MeshError('forbidden', ''), 77],
    [new MeshError('unauthenticated', ''), 77],
    [new MeshError('file_permissions', ''), 77],
    [new MeshError('internal', ''), 70],
    [new Error('anything'), 70],
    ['no error at all', 70],
  ])('%s exits with %i', (thrown, code) => {
    expect(exitCodeOf(thrown)).toBe(code);
  });
});

test.each([
  ['20.20.2', false],
  ['22.17.9', false],
  ['22.18.0', true],
  ['23.0.0', true],
  ['24.21.0', true],
])('Node %s is new enough: %s', (version, isEnough) => {
  const check = () => checkNode(version);
  if (isEnough) expect(check).not.toThrow();
  else expect(check).toThrow(expect.objectContaining({ code: 'platform_unsupported' }));
});

test.each([
  ['decision', { verdict: 'allow', source: 'a', destination: 'b' }, 'allow a -> b break glass: fire (T-1)'],
  ['policy_change', { action: 'created', policy: 'pay/p' }, 'created pay/p by uid 0 break glass: fire (T-1)'],
])('a row of the audit log tells of break glass: %s', (type, fields, what) => {
  const event = { type, ...fields, actor: { kind: 'uid', uid: 0 }, breakGlass: 'fire (T-1)' };
  const row = summarise({ index: 0, leafHash: '', personal: {}, event });
  expect(row[3]).toBe(what);
});
