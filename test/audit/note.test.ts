import { generateKeyPairSync, verify } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { openCheckpoint, parseCheckpoint, signCheckpoint } from '../../src/audit/checkpoint.ts';
import { leafHash } from '../../src/audit/leaf.ts';
import { emptyRoot, nodeHash } from '../../src/audit/merkle-tree.ts';
import { createNoteSigner, openNote, parseVerifierKey } from '../../src/audit/note.ts';
import { formatTilePath, parseTilePath } from '../../src/audit/tile-path.ts';
import { formatTlogProof, parseTlogProof, verifyTlogProof } from '../../src/audit/tlog-proof.ts';
import { hex, logKey, logSigner, makeNoteSigner } from './log-files.ts';

// The vector of the specification.
const foo = 'example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k';
const fooNote = `This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n`;
const text = 'example.org/audit\n5\nqc3IkwhClPzW7Av8cTcQ1IGa5JtMFD0dSCQxN9Hh3Zg=\n';
const note = logSigner.sign(text);
const signature = note.slice(text.length + 1);
const other = makeNoteSigner('other.example/log', 2);

describe('a signed note', () => {
  test('of the specification opens', () => {
    const key = parseVerifierKey(foo);
    expect([key.name, key.keyId]).toEqual(['example.com/foo', '530d903a']);
    expect(openNote(fooNote, [key])).toEqual({ text: 'This is an example message.\n', signedBy: [key] });
  });

  test('that repeats a line has it verified once', () => {
    let verified = 0;
    const counted = { ...logKey, publicKey: logKey.publicKey };
    Object.defineProperty(counted, 'publicKey', { get: () => (verified++, logKey.publicKey) });
    expect(openNote(note + signature.repeat(99), [counted]).signedBy).toEqual([counted]);
    expect(verified).toBe(1);
  });

  test('of ours opens with the key that the signer states, whoever else has signed it', () => {
    expect(logSigner.verifierKey).toMatch(/^example\.org\/audit\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}$/);
    const [, bytes = ''] = /^— example\.org\/audit (.*)\n$/.exec(signature) ?? [];
    const raw = Buffer.from(bytes, 'base64').subarray(4);
    expect(verify(null, Buffer.from(text), logKey.publicKey, raw)).toBe(true);
    const stranger = other.sign(text).slice(text.length + 1);
    const others = stranger.repeat(16);
    expect(openNote(note + others, [logKey]).signedBy).toEqual([logKey]);
    expect(openNote(`${text}\n${others}${signature}`, [logKey]).signedBy).toEqual([logKey]);
    const otherKey = parseVerifierKey(other.verifierKey);
    expect(openNote(note + stranger, [logKey, otherKey]).signedBy).toEqual([logKey, otherKey]);
  });

  test.each<[string, string, string]>([
    ['nothing', '', 'audit_note_invalid'],
    ['no signature', text, 'audit_note_invalid'],
    ['no empty line', text + signature, 'audit_note_invalid'],
    ['an empty line and no signature', `${text}\n`, 'audit_note_invalid'],
    ['no line break at its end', note.slice(0, -1), 'audit_note_invalid'],
    ['a line break too many', `${note}\n`, 'audit_note_invalid'],
    ['a carriage return', note.replace('\n', '\r\n'), 'audit_note_invalid'],
    ['a terminal escape', note.replace('example', '\u001b[2J'), 'audit_note_invalid'],
    ['a C1 control character', note.replace('5\n', '5\u0085\n'), 'audit_note_invalid'],
    ['a NUL', note.replace('5\n', '5\0\n'), 'audit_note_invalid'],
    ['half a surrogate', note.replace('5\n', '5\ud800\n'), 'audit_note_invalid'],
    ['a hyphen for the dash', note.replace('— ', '- '), 'audit_note_invalid'],
    ['two spaces', note.replace('— ', '—  '), 'audit_note_invalid'],
    ['a signature that is no base64', note.replace(/.=?\n$/, '!\n'), 'audit_note_invalid'],
    ['a signature that is too short', `${text}\n— example.org/audit AAAAAA==\n`, 'audit_note_invalid'],
    ['a name with a plus sign', `${text}\n— a+b AAAAAAAA\n`, 'audit_note_invalid'],
    ['a name with a wide space', `${text}\n— a\u2003b AAAAAAAA\n`, 'audit_note_invalid'],
    ['a line between signatures', `${text}\n${signature}hello\n${signature}`, 'audit_note_invalid'],
    ['a hundred signatures more', note + signature.repeat(100), 'audit_note_invalid'],
    ['more than 64 KiB', logSigner.sign(`${'a'.repeat(70_000)}\n`), 'audit_note_invalid'],
    ['another text', note.replace('\n5\n', '\n6\n'), 'audit_signature_invalid'],
    ['another line break', note.replace('\n\n', '\n\n\n'), 'audit_signature_invalid'],
    ['the signature of another alone', other.sign(text), 'audit_signature_invalid'],
    [
      'our name with a key of somebody else',
      makeNoteSigner('example.org/audit', 3).sign(text),
      'audit_signature_invalid',
    ],
    ['a wrong signature of ours besides a good one', note + flip(signature), 'audit_signature_invalid'],
    [
      'a good signature of another and a wrong one of ours',
      other.sign(text) + flip(signature),
      'audit_signature_invalid',
    ],
    ['a signature of ours that is a byte short', note + shorten(signature), 'audit_signature_invalid'],
  ])('with %s is refused', (_, changed, code) => {
    expect(() => openNote(changed, [logKey])).toThrow(expect.objectContaining({ code }));
  });

  test('is refused whichever bit of it is flipped', () => {
    const bytes = Buffer.from(note);
    fc.assert(
      fc.property(fc.nat({ max: bytes.length * 8 - 1 }), (bit) => {
        const changed = Buffer.from(bytes);
        changed[bit >> 3]! ^= 1 << (bit & 7);
        expect(() => openNote(changed.toString('latin1'), [logKey])).toThrow();
        expect(() => openNote(changed.toString('utf8'), [logKey])).toThrow();
      }),
    );
  });
});

describe('a verifier key', () => {
  const [name = '', id = '', key = ''] = logSigner.verifierKey.split(/\+(.{8})\+/);
  test.each<[string, string]>([
    ['nothing', ''],
    ['a name alone', name],
    ['no name', `+${id}+${key}`],
    ['a name with a space', `a b+${id}+${key}`],
    ['another name', `${name}x+${id}+${key}`],
    ['another ID', `${name}+00000000+${key}`],
    ['an ID in capitals', `${name}+${id.toUpperCase().replace(/^[0-9]+$/, 'ABCDEF01')}+${key}`],
    ['a key of another kind', `${name}+${id}+${Buffer.from([2, ...Buffer.alloc(32, 1)]).toString('base64')}`],
    ['a key that is too long', `${name}+${id}+${Buffer.alloc(34, 1).toString('base64')}`],
    ['base64url', `${name}+${id}+${key.replaceAll('/', '_').replaceAll('+', '-')}=`],
    ['a line break at its end', `${logSigner.verifierKey}\n`],
    ['a private key', `PRIVATE+KEY+${logSigner.verifierKey}`],
  ])('with %s is refused', (_, changed) => {
    expect(() => parseVerifierKey(changed)).toThrow(expect.objectContaining({ code: 'audit_note_invalid' }));
  });

  test.each([['a+b'], ['a b'], [''], ['a\nb'], ['x'.repeat(256)]])('cannot be named %j', (wrong) => {
    expect(() => createNoteSigner(wrong, logSigner.privateKey)).toThrow(
      expect.objectContaining({ code: 'audit_note_invalid' }),
    );
  });

  test('is of Ed25519 and nothing else', () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    expect(() => createNoteSigner('a', privateKey)).toThrow(
      expect.objectContaining({ code: 'audit_note_invalid' }),
    );
  });
});

describe('a checkpoint', () => {
  test('says what it was made of', () => {
    const head = { size: 2 ** 53 - 1, root: emptyRoot };
    expect(openCheckpoint(signCheckpoint(head, logSigner), logKey)).toEqual({
      origin: 'example.org/audit',
      size: head.size,
      root: new Uint8Array(emptyRoot),
    });
  });

  test.each<[string, string]>([
    ['no root', 'example.org/audit\n5\n'],
    ['an extension line', `${text}more\n`],
    ['an empty line', `${text}\n`],
    ['no origin', text.replace('example.org/audit', '')],
    ['an origin with a space', text.replace('/audit', ' audit')],
    ['a leading zero', text.replace('\n5\n', '\n05\n')],
    ['a sign', text.replace('\n5\n', '\n+5\n')],
    ['a size in hex', text.replace('\n5\n', '\n0x5\n')],
    ['a size with a space', text.replace('\n5\n', '\n5 \n')],
    ['a negative size', text.replace('\n5\n', '\n-5\n')],
    ['a size that no number holds', text.replace('\n5\n', '\n9007199254740992\n')],
    ['a root in base64url', text.replace('=', '').replaceAll('/', '_')],
    ['a root without its padding', text.replace('=', '')],
    ['a root with stray bits', text.replace('Zg=', 'Zh=')],
    ['a short root', text.replace('qc3I', '')],
  ])('with %s is refused', (_, changed) => {
    expect(() => parseCheckpoint(changed)).toThrow(expect.objectContaining({ code: 'audit_note_invalid' }));
  });

  test('of another log is refused, though our key signed it', () => {
    const foreign = logSigner.sign(text.replace('example.org', 'example.com'));
    expect(() => openCheckpoint(foreign, logKey)).toThrow(
      expect.objectContaining({ code: 'audit_note_invalid', message: 'the checkpoint is of another log' }),
    );
  });
});

describe('the path of a tile', () => {
  test.each<[string, Parameters<typeof formatTilePath>[0]]>([
    ['tile/0/000', { level: 0, index: 0, width: 256 }],
    ['tile/0/000.p/1', { level: 0, index: 0, width: 1 }],
    ['tile/63/x001/x234/067', { level: 63, index: 1_234_067, width: 256 }],
    ['tile/2/x001/000.p/255', { level: 2, index: 1_000, width: 255 }],
    ['tile/entries/999.p/16', { level: 'entries', index: 999, width: 16 }],
    ['tile/entries/x034/x359/x738/367', { level: 'entries', index: 34_359_738_367, width: 256 }],
  ])('%s', (path, tile) => {
    expect([formatTilePath(tile), parseTilePath(path)]).toEqual([path, tile]);
  });

  test.each([
    [''],
    ['tile'],
    ['checkpoint'],
    ['/tile/0/000'],
    ['tile/0/000/'],
    ['tile/0/0'],
    ['tile/0/0000'],
    ['tile/00/000'],
    ['tile/-1/000'],
    ['tile/64/000'],
    ['tile/0/x000/001'],
    ['tile/0/001/002'],
    ['tile/0/x001'],
    ['tile/0/X001/002'],
    ['tile/0/000.p'],
    ['tile/0/000.p/'],
    ['tile/0/000.p/0'],
    ['tile/0/000.p/256'],
    ['tile/0/000.p/007'],
    ['tile/0/000.p/1/2'],
    ['tile/Entries/000'],
    ['tile/data/000'],
    ['tile/8/0/000/..'],
    ['tile/0/../../000'],
    ['tile/0/x999/x999/x999/x999/x999/999'],
    ['tile/0/٠٠٠'],
  ])('is not %j', (path) => {
    expect(parseTilePath(path)).toBeUndefined();
  });

  test('is one for each tile', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.constant('entries' as const), fc.integer({ min: 0, max: 63 })),
        fc.oneof(fc.nat({ max: 5_000 }), fc.integer({ min: 0, max: 2 ** 45 - 1 })),
        fc.integer({ min: 1, max: 256 }),
        (level, index, width) => {
          const tile = { level, index, width };
          expect(parseTilePath(formatTilePath(tile))).toEqual(tile);
        },
      ),
    );
  });
});

describe('a proof as a file', () => {
  const entry = Buffer.from('{"type":"decision"}');
  const beside = leafHash(Buffer.from('beside'));
  const signer = makeNoteSigner();
  const root = Buffer.from(nodeHash(leafHash(entry), beside));
  const proof = {
    index: 0,
    path: [new Uint8Array(beside)],
    checkpoint: signCheckpoint({ size: 2, root }, signer),
    extra: new Uint8Array(entry),
  };
  const file = formatTlogProof(proof);

  test('is read as it was written, with and without what it says besides', () => {
    for (const one of [proof, { ...proof, extra: null }]) {
      expect(parseTlogProof(formatTlogProof(one))).toEqual(one);
    }
    expect(file.split('\n').slice(0, 3)).toEqual([
      'c2sp.org/tlog-proof@v1',
      `extra ${entry.toString('base64')}`,
      'index 0',
    ]);
    expect(hex(verifyTlogProof(proof, leafHash(entry), logKey).root)).toBe(hex(root));
  });

  test.each<[string, string]>([
    ['another header', file.replace('v1', 'v2')],
    ['no header', file.slice(file.indexOf('\n') + 1)],
    ['no empty line', file.replaceAll('\n\n', '\n')],
    ['extra data twice', file.replace('extra', 'extra AAAA\nextra')],
    ['extra data that is no base64', file.replace('extra ', 'extra !')],
    ['no index', file.replace(/index 0\n/, '')],
    ['a leading zero', file.replace('index 0', 'index 00')],
    ['an index that no number holds', file.replace('index 0', 'index 9007199254740993')],
    ['a negative index', file.replace('index 0', 'index -1')],
    ['a short hash', file.replace(/\n[A-Za-z0-9+/]{43}=\n\n/, '\nAAAA\n\n')],
    ['64 hashes', formatTlogProof({ ...proof, path: Array<Uint8Array>(64).fill(beside) })],
    ['a quarter of a megabyte', file + ' '.repeat(262_144)],
  ])('with %s is refused', (_, changed) => {
    expect(() => parseTlogProof(changed)).toThrow(expect.objectContaining({ code: 'audit_note_invalid' }));
  });

  test.each<[string, Partial<typeof proof>, Uint8Array, string]>([
    ['another entry', {}, leafHash(Buffer.from('{"type":"ban"}')), 'audit_proof_invalid'],
    ['another place', { index: 1 }, leafHash(entry), 'audit_proof_invalid'],
    ['a place beyond', { index: 2 }, leafHash(entry), 'audit_proof_invalid'],
    ['no path', { path: [] }, leafHash(entry), 'audit_proof_invalid'],
    [
      'another root',
      { checkpoint: signCheckpoint({ size: 2, root: beside }, signer) },
      leafHash(entry),
      'audit_proof_invalid',
    ],
    [
      'the checkpoint of another',
      { checkpoint: signCheckpoint({ size: 2, root }, other) },
      leafHash(entry),
      'audit_signature_invalid',
    ],
    ['no checkpoint', { checkpoint: '' }, leafHash(entry), 'audit_note_invalid'],
  ])('does not prove %s', (_, change, hash, code) => {
    expect(() => verifyTlogProof({ ...proof, ...change }, hash, logKey)).toThrow(
      expect.objectContaining({ code }),
    );
  });
});

function flip(line: string): string {
  return line.replace(/(.)(..\n)$/, (_, c: string, rest: string) => (c === 'A' ? 'B' : 'A') + rest);
}

function shorten(line: string): string {
  const [, name = '', bytes = ''] = /^— (\S+) (\S+)\n$/.exec(line) ?? [];
  return `— ${name} ${Buffer.from(bytes, 'base64').subarray(0, -1).toString('base64')}\n`;
}
