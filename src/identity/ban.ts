import { isDeepStrictEqual } from 'node:util';
import type { Actor, BanEvent } from '../audit/event.ts';
import { parseMoment, unitMs } from '../audit/moment.ts';
import { MeshError, quote } from '../errors.ts';
import { SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { reservedPath } from './entry-parse.ts';
import { nodePath } from './node.ts';

/** What can be banned: an identity, one certificate, or every certificate of a key pair. */
export const banKinds = ['spiffe-id', 'serial', 'key'] as const;
export type BanKind = (typeof banKinds)[number];

/** What a ban is about, in the one form it is compared in. */
export type BanTarget = {
  readonly kind: BanKind;
  /**
   * `spiffe-id`: the ID of a workload of any trust domain; `serial`: lower-case hex as certificates are read here;
   * `key`: SHA-256 of the SubjectPublicKeyInfo, lower-case hex.
   */
  readonly value: string;
};

/** A ban. It is in force until its time, if it has one, and else until it is lifted. Immutable. */
export type Ban = BanTarget & {
  /** 1 to 512 characters, no control characters. For operators and the log; callers are not told. */
  readonly reason: string;
  readonly until: Date | null;
  readonly createdAt: Date;
  /** Who banned. */
  readonly actor: Actor;
  /** The mesh revision that last changed it. */
  readonly revision: number;
};

/** A ban as its author writes it. */
export type BanInput = {
  readonly kind: string;
  readonly value: string;
  readonly reason: string;
  /** RFC 3339 with a time zone, or how long from now: `90s`, `10m`, `2h`, `30d`, `4w`. Null: until it is lifted. */
  readonly until?: string | null;
};

/** The most characters (UTF-16 code units) of a reason. */
export const maxReasonLength = 512;

/**
 * Checks what an author wrote and completes it.
 * @throws MeshError `ban_invalid`, `spiffe_id_*`
 */
export function parseBan(
  input: BanInput,
  trustDomain: TrustDomain,
  { actor, revision, now }: { readonly actor: Actor; readonly revision: number; readonly now: Date },
): Ban {
  const target = parseBanTarget(input.kind, input.value);
  // Its certificate serves the admin API, through which the ban would have to be lifted.
  const isOf = (path: string): boolean => target.value.startsWith(`${trustDomain.id}${path}`);
  if (target.kind === 'spiffe-id' && isOf(reservedPath) && !isOf(nodePath)) {
    refuse(
      `${quote(target.value)} is kept for Countersign itself and cannot be banned`,
      'ban a workload or a node',
    );
  }
  return {
    ...target,
    reason: parseReason(input.reason),
    until: parseUntil(input.until ?? null, now),
    createdAt: now,
    actor,
    revision,
  };
}

/**
 * Reads what a ban is about. Colons between the bytes, upper case and leading zero bytes of hex are read as the
 * certificate's own form, so that no ban is in force which nothing can match.
 * @throws MeshError `ban_invalid`, `spiffe_id_*`
 */
export function parseBanTarget(kind: string, value: string): BanTarget {
  const known = banKinds.find((one) => one === kind);
  switch (known) {
    case 'spiffe-id':
      return { kind: known, value: SpiffeId.parseWorkload(value).text };
    case 'serial':
      return { kind: known, value: parseSerial(value) };
    case 'key':
      return { kind: known, value: parseKey(value) };
    case undefined:
      return refuse(`${quote(kind)} cannot be banned`, `use ${banKinds.join(', ')}`);
    default:
      return known satisfies never;
  }
}

/** The key of a ban in its mesh: no two bans are about the same. */
export function banKey({ kind, value }: BanTarget): string {
  return `${kind} ${value}`;
}

/** Whether a ban holds at `now`; at its very end it does not. */
export function isInForce({ until }: Ban, now: Date): boolean {
  return until === null || now < until;
}

/**
 * Whether `next` holds at least as long as `before` from `now` on: a second ban must not quietly shorten the first.
 */
export function lastsAsLong(before: Ban, next: Ban, now: Date): boolean {
  if (!isInForce(before, now) || next.until === null) return true;
  return before.until !== null && next.until >= before.until;
}

/** Whether two bans differ only in who made them when. */
export function sameBan(a: Ban, b: Ban): boolean {
  return banKey(a) === banKey(b) && a.reason === b.reason && isDeepStrictEqual(a.until, b.until);
}

/** The event of a ban made, or lifted, in the step to `revision`. */
export function banEvent(
  action: BanEvent['action'],
  { kind, value, reason, until }: Ban,
  { time, revision, actor }: Pick<BanEvent, 'time' | 'revision' | 'actor'>,
): BanEvent {
  return { type: 'ban', time, action, kind, value, reason, until, revision, actor };
}

/**
 * Whatever may stand in a certificate or a token as its number, in the form that bans are compared in; empty for what is
 * no hex, which no ban is about.
 */
export function readSerial(text: string): string {
  // The octet that keeps a DER integer positive is no part of it.
  return readHex(text).replace(/^(?:00)+/, '');
}

function parseSerial(text: string): string {
  const serial = readSerial(text);
  if (serial !== '' && serial.length <= maxSerialBytes * 2) return serial;
  return refuse(`${quote(text)} is no serial number`, 'write 1 to 20 bytes in hex, as the log prints them');
}

function parseKey(text: string): string {
  const digits = readHex(text);
  if (digits.length === keyBytes * 2) return digits;
  return refuse(
    `${quote(text)} is no SHA-256 of a public key`,
    'write the 64 hex digits of spkiSha256 in the log, or of `openssl x509 -pubkey -noout -in svid.pem | openssl pkey -pubin -outform der | sha256sum`',
  );
}

/** Whole bytes in lower case; empty when the text is not hex. */
function readHex(text: string): string {
  if (text.length > maxHexLength || !/^(?:[0-9a-f]+|[0-9a-f]{2}(?::[0-9a-f]{2})+)$/i.test(text)) return '';
  const digits = text.replaceAll(':', '').toLowerCase();
  return digits.length % 2 === 0 ? digits : `0${digits}`;
}

function parseReason(text: string): string {
  if (text.trim() === '') refuse('a ban needs a reason', 'say why, for whoever reads the log');
  if (text.length > maxReasonLength) {
    refuse(`the reason is longer than ${maxReasonLength} characters`, 'shorten it');
  }
  if (unprintable.test(text) || !text.isWellFormed()) {
    refuse('the reason has characters that cannot be seen', 'write printable text on one line');
  }
  return text;
}

function parseUntil(text: string | null, now: Date): Date | null {
  if (text === null) return null;
  const until = parseLater(text, now);
  if (until === undefined) {
    refuse(`${quote(text)} is no time`, 'write 2h, 30d or 2027-01-31T12:00:00Z, or leave it out');
  }
  if (until <= now) refuse(`${quote(text)} is not in the future`, 'name a later time, or leave it out');
  return until;
}

function parseLater(text: string, now: Date): Date | undefined {
  const [, count, unit] = /^([0-9]{1,6})([smhdw])$/.exec(text) ?? [];
  if (count === undefined) return text.length > dateLength ? parseMoment(text, now) : undefined;
  const until = new Date(now.getTime() + Number(count) * (unitMs.get(unit ?? '') ?? 0));
  return until.getUTCFullYear() <= 9_999 ? until : undefined;
}

function refuse(message: string, fix: string): never {
  throw new MeshError('ban_invalid', message, { fix });
}

const maxSerialBytes = 20;
const keyBytes = 32;
const maxHexLength = 128;
// A date alone does not say whether its day is in or out.
const dateLength = 'yyyy-mm-dd'.length;
const unprintable = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/;
