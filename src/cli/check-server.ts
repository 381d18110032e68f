import type { Condition, ConditionCode } from '../http/condition.ts';
import type { KeyReport } from '../http/ca-routes.ts';
import type { StatusReport } from '../http/status-report.ts';
import type { Travelled } from '../http/travelled.ts';
import type { CheckCode, CheckResult } from './check-report.ts';
import { failed, ok, skipped, span, warning } from './check-result.ts';

export type CheckedStatus = Travelled<StatusReport>;
export type CheckedKeys = Travelled<KeyReport>;

/**
 * What a server says of itself.
 * @param told checks of this machine that have found something: the server is not asked to say it again
 */
export function judgeStatus(
  status: CheckedStatus,
  ownVersion: string,
  told: ReadonlySet<CheckCode> = new Set(),
): readonly CheckResult[] {
  return [
    status.version === ownVersion
      ? ok('server_version', `the server has the version of this command (${ownVersion})`)
      : warning(
          'server_version',
          'the server has the version of this command',
          `the server has ${status.version}, this command ${ownVersion}`,
          'install the same version of both',
        ),
    status.ready
      ? ok('server_ready', 'the server is ready')
      : ofConditions('server_ready', 'the server is ready', causesOf(status), 'failed'),
    ofConditions(
      'server_untroubled',
      'nothing is about to go wrong in the server',
      warningsOf(status).filter(
        ({ code }) => !elsewhere.has(code) && !(code === 'disk_low' && told.has('disk_room')),
      ),
      'warning',
    ),
    ...judgeLog(status),
  ];
}

/** The time of this machine against the server's, of which it was asked between `before` and `after`. */
export function judgeClock(status: CheckedStatus, before: Date, after: Date): readonly CheckResult[] {
  const text = 'the clock of this machine agrees with that of the server';
  const theirs = Date.parse(status.now);
  const apartMs = Math.max(0, before.getTime() - theirs, theirs - after.getTime());
  const cause = `they are ${span(apartMs)} apart`;
  const fix = 'let both keep time with NTP';
  const steady = warningsOf(status).filter(({ code }) => code === 'clock_put');
  return [
    apartMs > farApartMs
      ? failed('clock_agrees', text, cause, fix)
      : apartMs > apartMostMs
        ? warning('clock_agrees', text, cause, fix)
        : ok('clock_agrees', text),
    ofConditions('clock_steady', 'the clock of the server was not put', steady, 'warning'),
  ];
}

/** The CA's certificates and the keys of tokens. */
export function judgeKeys(keys: CheckedKeys, now: Date): readonly CheckResult[] {
  const signer = keys.authorities.find(({ kind, state }) => kind === 'intermediate' && state === 'active');
  const roots = keys.authorities.filter(({ kind }) => kind === 'root');
  const tainted = keys.authorities.filter(({ tainted: isTainted }) => isTainted);
  const jwt = keys.jwtKeys.some(({ state }) => state === 'active');
  const isWaiting = keys.waiting !== null;
  return [
    signer === undefined
      ? failed(
          'issuer_valid',
          'a CA signs certificates',
          isWaiting ? 'the key of the CA waits for its certificate' : 'no CA is active',
          isWaiting
            ? 'run countersign ca csr, have the request signed, then countersign ca import'
            : 'run countersign ca status',
        )
      : judgeLife('issuer_valid', 'the issuing CA', signer, now, 'run countersign ca rotate'),
    ...roots
      .map((root) => judgeLife('root_valid', 'the root', root, now, 'run countersign ca rotate --root'))
      .sort((a, b) => severity(b) - severity(a))
      .slice(0, 1),
    jwt
      ? ok('jwt_key_signs', 'a key signs tokens')
      : failed(
          'jwt_key_signs',
          'a key signs tokens',
          'none is active',
          'run countersign ca status, and see the log',
        ),
    judgeRotation(keys),
    tainted.length === 0
      ? ok('keys_untainted', 'no key of the CA is believed stolen')
      : warning(
          'keys_untainted',
          'no key of the CA is believed stolen',
          `${tainted.map(({ kind, keyId }) => `${kind} ${keyId}`).join(', ')} is tainted and not replaced yet`,
          'run countersign ca status: it says what the replacement waits for',
        ),
  ];
}

/** Workloads that have a certificate from here, or wait for one, and what attests them. */
export function judgeWorkloads(
  status: Pick<CheckedStatus, 'workloads' | 'workloadsInAll' | 'sources' | 'streams'>,
): readonly CheckResult[] {
  const { workloads, workloadsInAll, sources, streams } = status;
  const text = 'every workload that is served has a certificate that is renewed in time';
  const dark = workloads.filter(
    ({ darkBy, darkInSeconds }) => darkBy === 'certificate' && darkInSeconds <= 0,
  );
  const failing = workloads.filter(({ failure }) => failure !== '');
  const [first] = dark.length > 0 ? dark : failing;
  const cause =
    first === undefined
      ? ''
      : `${first.spiffeId}: ${first.failure === '' ? 'its certificate has ended' : first.failure}`;
  const more = Math.max(dark.length, failing.length) - 1;
  const shown = more > 0 ? `${cause}; and ${more} more` : cause;
  const fix = 'run countersign status, and see the log for why renewals fail';
  const down = sources.filter(({ state }) => state === 'failing');
  return [
    workloadsInAll === 0
      ? skipped('workloads_lit', 'no workload has asked for a certificate yet')
      : dark.length > 0
        ? failed('workloads_lit', text, shown, fix)
        : failing.length > 0
          ? warning('workloads_lit', text, shown, fix)
          : ok('workloads_lit', `${workloadsInAll} served, ${streams} streams open; all are renewed in time`),
    down.length === 0
      ? ok('sources_answer', 'what attests workloads answers')
      : warning(
          'sources_answer',
          'what attests workloads answers',
          down.map(({ name, lastFailure }) => `${name}: ${lastFailure}`).join('; '),
          'see docs/attestation.md for what each source needs',
        ),
  ];
}

/** How far a certificate is from its end, by a sixth of its life. */
export function judgeLife(
  code: CheckCode,
  what: string,
  { notBefore, notAfter }: { readonly notBefore: string; readonly notAfter: string },
  now: Date,
  fix: string,
): CheckResult {
  const text = `${what} is valid, and far from its end`;
  const [from, until] = [Date.parse(notBefore), Date.parse(notAfter)];
  const leftMs = until - now.getTime();
  if (leftMs <= 0) return failed(code, text, `it ended at ${notAfter}`, fix);
  if (now.getTime() < from) {
    return failed(code, text, `it is valid only from ${notBefore}`, 'set the clock of this machine right');
  }
  if (leftMs * lateFraction > until - from) return ok(code, text);
  return warning(code, text, `it ends at ${notAfter}, in ${span(leftMs)}`, fix);
}

function judgeRotation({ next, laggards, moreLaggards, doubt, coverage }: CheckedKeys): CheckResult {
  const text = 'no rotation of the CA waits for anybody';
  if (next === null) {
    return ok(
      'rotation_settled',
      `${text} (${coverage.confirmed} of ${coverage.holders} holders have confirmed the bundle)`,
    );
  }
  if (next.safe) {
    const fix = `run countersign ca ${next.step}`;
    return warning('rotation_settled', text, `${next.step} is safe now, and nobody has asked for it`, fix);
  }
  const [first] = laggards;
  const who =
    first === undefined
      ? (doubt ?? 'the evidence is not complete')
      : `${first.spiffeId} on ${first.node}: ${first.why}`;
  const more = laggards.length + moreLaggards - 1;
  const fix = 'run countersign ca status: it names who is in the way, and until when';
  return warning(
    'rotation_settled',
    text,
    `${next.step} waits for ${who}${more > 0 ? `; and ${more} more` : ''}`,
    fix,
  );
}

function judgeLog(status: CheckedStatus): readonly CheckResult[] {
  const of = (...codes: readonly ConditionCode[]) =>
    status.conditions.filter(({ code }) => codes.includes(code));
  return [
    ofConditions('log_writable', 'the log takes records', of('store_failed'), 'failed'),
    ofConditions(
      'log_complete',
      'the log keeps up with decisions',
      of('log_behind', 'decisions_lost'),
      'warning',
    ),
    ofConditions(
      'log_witnessed',
      'no witness of the log is missed',
      of('log_disputed', 'log_unwitnessed'),
      'warning',
    ),
  ];
}

function ofConditions(
  code: CheckCode,
  text: string,
  conditions: readonly Condition[],
  status: 'warning' | 'failed',
): CheckResult {
  const [first] = conditions;
  if (first === undefined) return ok(code, text);
  return { code, status, text, cause: conditions.map((one) => one.text).join('; '), fix: first.fix };
}

function causesOf({ conditions }: CheckedStatus): readonly Condition[] {
  return conditions.filter(({ level }) => level === 'cause');
}

function warningsOf({ conditions }: CheckedStatus): readonly Condition[] {
  return conditions.filter(({ level }) => level === 'warning');
}

function severity({ status }: CheckResult): number {
  return status === 'failed' ? 2 : status === 'warning' ? 1 : 0;
}

// Each has a check of its own.
const elsewhere: ReadonlySet<ConditionCode> = new Set([
  'clock_put',
  'log_behind',
  'decisions_lost',
  'log_unwitnessed',
  'log_disputed',
]);
const apartMostMs = 5_000;
// A new certificate is valid from half a minute ago, so that others see it as not valid yet.
const farApartMs = 30_000;
const lateFraction = 6;
