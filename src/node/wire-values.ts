import { MeshError } from '../errors.ts';
import { SpiffeId } from '../spiffe/id.ts';

/** A whole number from 0 to 2^53 - 1. @throws MeshError `message_invalid` */
export function integerOf(value: bigint, what: string): number {
  if (value < 0n || value > BigInt(Number.MAX_SAFE_INTEGER)) refuse(`${what} out of range`);
  return Number(value);
}

/** A moment between 1970 and the end of the year 9999, from milliseconds. @throws MeshError `message_invalid` */
export function dateOf(ms: bigint): Date {
  if (ms < 0n || ms > latestMs) refuse('a time out of range');
  return new Date(Number(ms));
}

/** A part that must be there. @throws MeshError `message_invalid` */
export function required<T>(value: T | undefined, what: string): T {
  return value ?? refuse(`no ${what}`);
}

/** The identity of a caller is one, or empty. @throws MeshError `message_invalid` */
export function checkSource(source: string): void {
  if (source === '') return;
  try {
    SpiffeId.parse(source);
  } catch {
    refuse('a caller that no SPIFFE ID names');
  }
}

function refuse(what: string): never {
  throw new MeshError('message_invalid', `the message has ${what}`);
}

const latestMs = 253_402_300_799_999n;
