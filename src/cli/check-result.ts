import { MeshError, publicError } from '../errors.ts';
import type { CheckCode, CheckResult } from './check-report.ts';

/** A check that found what should be. */
export function ok(code: CheckCode, text: string): CheckResult {
  return { code, status: 'ok', text };
}

/** A check that there was nothing to make of. */
export function skipped(code: CheckCode, text: string): CheckResult {
  return { code, status: 'skipped', text };
}

/** Something that will need somebody. */
export function warning(code: CheckCode, text: string, cause: string, fix: string): CheckResult {
  return { code, status: 'warning', text, cause, fix };
}

/** Something that is broken. */
export function failed(code: CheckCode, text: string, cause: string, fix: string): CheckResult {
  return { code, status: 'failed', text, cause, fix };
}

/** A warning that names the first of what was found, or none when nothing was. */
export function listed(code: CheckCode, text: string, found: readonly string[], fix: string): CheckResult {
  if (found.length === 0) return ok(code, text);
  const more = found.length > shown ? `; and ${found.length - shown} more` : '';
  return warning(code, text, `${found.slice(0, shown).join('; ')}${more}`, fix);
}

/**
 * Makes a check. What it throws is what it has found: what may not be looked at is skipped, all else has failed.
 * @param text what should be, for that case
 */
export async function attempt(
  code: CheckCode,
  text: string,
  check: () => CheckResult | Promise<CheckResult>,
): Promise<CheckResult> {
  try {
    return await check();
  } catch (error) {
    const { message, fix } = error instanceof MeshError ? error : publicError(error);
    if (error instanceof MeshError && error.code === 'forbidden') return skipped(code, `${text}: ${message}`);
    return failed(code, text, message, fix ?? 'see the log of the server');
  }
}

/** Of something that ends. */
export function ends(leftMs: number): string {
  return leftMs <= 0 ? 'has ended' : `ends in ${span(leftMs)}`;
}

/** How long until a moment, for people; `over` when it has passed. */
export function span(ms: number): string {
  if (ms <= 0) return 'over';
  const units: readonly (readonly [string, number])[] = [
    ['days', 86_400_000],
    ['hours', 3_600_000],
    ['minutes', 60_000],
  ];
  const found = units.find(([, length]) => ms >= 2 * length);
  return found === undefined
    ? `${Math.ceil(ms / 1_000)} seconds`
    : `${Math.floor(ms / found[1])} ${found[0]}`;
}

const shown = 3;
