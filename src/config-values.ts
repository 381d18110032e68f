import { join, resolve } from 'node:path';
import { checkKeyName, type NoteKey, parseVerifierKey } from './audit/note.ts';
import { SpiffeId } from './spiffe/id.ts';

/** The trust domain of a first start that is told nothing. */
export const defaultTrustDomain = 'mesh.internal';

/** Kinds of CA keys, by the names options have for them. */
export const authorityKeyTypes = ['ec-p256', 'ec-p384'] as const;
export type AuthorityKeyType = (typeof authorityKeyTypes)[number];

export const logLevels = ['error', 'warn', 'info', 'debug'] as const;
export type LogLevel = (typeof logLevels)[number];

// Readers of single values. Each throws an Error that says what is wrong with the text; config.ts adds the name, the
// source and the fix.

/** An absolute path; a relative one is taken from the working directory. */
export function absolutePath(value: string): string {
  if (value === '') throw new Error('is empty');
  return resolve(value);
}

/** Empty text is null. */
export function optional<T>(parse: (value: string) => T): (value: string) => T | null {
  return (value) => (value === '' ? null : parse(value));
}

/** The word `off` is null. */
export function unlessOff<T>(parse: (value: string) => T): (value: string) => T | null {
  return (value) => (value === 'off' ? null : parse(value));
}

/** `0`, or what `parse` takes. */
export function zeroOr(parse: (value: string) => number): (value: string) => number {
  return (value) => (value === '0' ? 0 : parse(value));
}

/** `host:port`, or null for `off`. */
export function address(value: string): { readonly host: string; readonly port: number } | null {
  if (value === 'off') return null;
  const match = /^(\[[0-9a-f:]+\]|[0-9a-z.-]+):([0-9]{1,5})$/i.exec(value);
  const port = Number(match?.[2]);
  if (match?.[1] === undefined || port > 65_535) throw new Error('is not host:port or off');
  return { host: match[1].replace(/^\[|\]$/g, ''), port };
}

/** `host:port` of this machine alone, or null for `off`: what answers there asks nobody who they are. */
export function loopbackAddress(value: string): { readonly host: string; readonly port: number } | null {
  const at = address(value);
  if (at === null || /^(127(\.[0-9]{1,3}){3}|::1|localhost)$/i.test(at.host)) return at;
  throw new Error('is not an address of this machine alone, such as 127.0.0.1:9464');
}

/** The address of the kubelet, or null for `off`. Without TLS only on this machine. */
export function kubeletUrl(value: string): URL | null {
  if (value === 'off') return null;
  const match = /^(https?):\/\/(\[[0-9a-f:]+\]|[0-9a-z.-]+):[0-9]{1,5}$/.exec(value);
  if (match === null || !URL.canParse(value)) throw new Error('is not https://host:port or off');
  const isHere = /^(127(\.[0-9]{1,3}){3}|\[::1\])$/.test(match[2] ?? '');
  if (match[1] === 'http' && !isHere) throw new Error('is http, which is for 127.0.0.1 or [::1]');
  return new URL(value);
}

/** Where the service manager puts a credential. @see systemd.exec(5), section "Credentials" */
export function credentialPath(name: string, directory: string | undefined): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(name)) throw new Error('is not the name of a credential');
  // Whoever opens no keys, such as a client with the same file, need not have the credential.
  return directory?.startsWith('/') === true ? join(directory, name) : name;
}

/** The number of an open file descriptor, or null for nothing. */
export function descriptor(value: string): number | null {
  if (value === '') return null;
  const fd = integer(0, 1_023)(value);
  if (fd === 1 || fd === 2) throw new Error('is for output');
  return fd;
}

/** One of a closed list of words. */
export function oneOf<T extends string>(names: readonly T[]): (value: string) => T {
  return (value) => {
    const name = names.find((known) => known === value);
    if (name === undefined) throw new Error(`is not one of ${names.join(', ')}`);
    return name;
  };
}

/** The issuer of ID tokens, as their `iss` has it. */
export function httpsIssuer(value: string): string {
  // Relying parties compare it character by character, so a slash at its end is kept.
  const isPlain = /^https:\/\/[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(\/[A-Za-z0-9._~/-]*)?$/.test(value);
  if (!isPlain || value.length > 512 || !URL.canParse(value)) throw new Error('is no plain https URL');
  return value;
}

/** 1 to 255 printable ASCII characters. */
export function plainText(value: string): string {
  if (!/^[!-~]{1,255}$/.test(value)) throw new Error('is not 1 to 255 printable characters');
  return value;
}

/** SPIFFE IDs of workloads, separated by commas. */
export function spiffeIds(value: string): readonly SpiffeId[] {
  if (value.trim() === '') return [];
  return value.split(',').map((part) => SpiffeId.parseWorkload(part.trim()));
}

/** The name of a key that signs notes. */
export function keyName(value: string): string {
  checkKeyName(value);
  return value;
}

/** Verifier keys of logs, separated by spaces: a name may hold a comma. No two are the same. */
export function noteKeys(value: string): readonly NoteKey[] {
  const texts = value.split(/[ \t\n]+/).filter((text) => text !== '');
  if (new Set(texts).size < texts.length) throw new Error('names a key twice');
  return texts.map(parseVerifierKey);
}

/** User ids, separated by commas. */
export function uids(value: string): readonly number[] {
  if (value.trim() === '') return [];
  return value.split(',').map((part) => integer(0, 0xffff_ffff)(part.trim()));
}

/** A Kubernetes namespace name (RFC 1123 label). */
export function namespaceName(value: string): string {
  if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(value)) throw new Error('is not a namespace name');
  return value;
}

/** A whole number within bounds. */
export function integer(min: number, max: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (!/^[0-9]{1,10}$/.test(value) || number < min || number > max) {
      throw new Error(`is not a whole number from ${min} to ${max}`);
    }
    return number;
  };
}
