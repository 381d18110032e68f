import type { JwtReport } from '../http/jwt-report.ts';
import type { Travelled } from '../http/travelled.ts';
import { formatPairs, formatTable } from './text.ts';

/** The keys that sign tokens, and what comes next, as people read it. */
export function formatJwtKeys({ jwtBundleSequence, jwtKeys, jwtNext }: Travelled<JwtReport>): string {
  const keys = formatTable(
    ['JWT KEY', 'KIND', 'STATE', 'PUBLISHED', 'SIGNS FROM', 'UNTIL', 'LAST TOKEN EXPIRES'],
    jwtKeys.map(({ keyId, keyType, state, publishedAt, activatedAt, stoppedAt, lastTokenExpiresAt }) => [
      keyId,
      keyType,
      state,
      publishedAt,
      activatedAt ?? '',
      stoppedAt ?? '',
      lastTokenExpiresAt ?? 'none',
    ]),
  );
  const facts = formatPairs([
    ['JWT bundle', `${jwtBundleSequence}`],
    ...jwtNext.map(({ step, keyId, safeFrom, byItselfAt }, at) => {
      const what = step === 'prepare' ? 'a new JWT key is made' : `${steps.get(step) ?? step} ${keyId ?? ''}`;
      const earlier =
        safeFrom === byItselfAt ? '' : `; ${commands.get(step) ?? ''} is safe from ${safeFrom} on`;
      return [at === 0 ? 'JWT next' : '', `${what} at ${byItselfAt}${earlier}`] as const;
    }),
  ]);
  return `${keys}\n${facts}`;
}

const steps: ReadonlyMap<string, string> = new Map([
  ['activate', 'tokens are signed with'],
  ['retire', 'nobody is to believe any more'],
]);
const commands: ReadonlyMap<string, string> = new Map([
  ['prepare', '`ca rotate --jwt`'],
  ['activate', '`ca activate --jwt`'],
  ['retire', '`ca retire --jwt`'],
]);
