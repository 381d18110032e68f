import { nameOfReason } from './leaf-name.ts';
import { all, any, type Condition, type Leaf, not, type ProxyTree, test } from './proxy-tree.ts';

/** An answer that leaves the call to the policy engine. @param why `[a-z0-9_]` */
export function asking(why: string): Leaf {
  return { kind: 'leaf', verdict: 'ask', name: nameOfReason('ask', why) };
}

/** A denial that no rule makes. @param reason a `DecisionReason` */
export function denying(reason: string): Leaf {
  return { kind: 'leaf', verdict: 'deny', name: nameOfReason('deny', reason) };
}

type Guards = readonly (readonly [Condition, ProxyTree])[];

/**
 * What stands before all rules: a caller that is not one plain SPIFFE ID of a workload is denied or asked about. A
 * certificate with several URI names comes with them joined by commas, which no SPIFFE ID has.
 */
export const callerGuards: Guards = [
  [test('uri', 'contains', ','), denying('request_invalid')],
  [not(all([test('uri', 'regex', plainId()), test('uri', 'regex', '.{0,1000}')])), asking('caller')],
];

/** Of a rule that reads the port: a connection to a socket without one. */
export const portGuards: Guards = [[not(test('port', 'regex', '[1-9][0-9]{0,4}')), asking('port')]];

/**
 * Whatever the engine refuses or repairs before it judges, and more: what is left are paths, hosts and methods that are
 * canonical as they are written, so that comparing the text is comparing what the engine compares.
 */
export const requestGuards: Guards = [
  [not(test('method', 'regex', '(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH)')), asking('method')],
  [not(all([test('path', 'regex', plainPath()), test('path', 'regex', '.{0,1000}')])), asking('path')],
  [not(all([plainAuthority(), test('host', 'regex', '.{0,253}')])), asking('host')],
];

function plainId(): string {
  // No segment is a dot or two.
  const segment = '(?:[A-Za-z0-9_-]|\\.[A-Za-z0-9_-]|\\.\\.[A-Za-z0-9._-])[A-Za-z0-9._-]*';
  return `spiffe://[a-z0-9._-]{1,255}(?:/${segment})+`;
}

/** A path without empty segments, dot segments and anything that is encoded or has parameters; any visible query. */
function plainPath(): string {
  const undotted = "A-Za-z0-9\\-_~!$&'()*+,=:@";
  const segment = `(?:[${undotted}]|\\.[${undotted}]|\\.\\.[.${undotted}])[.${undotted}]*`;
  return `/(?:${segment}(?:/${segment})*/?)?(?:\\?[!"$-~]*)?`;
}

/** A name whose last label is no number, or an IPv4 address; in lower case, without a trailing dot. */
function plainAuthority(): Condition {
  const octet = '(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])';
  const port =
    '(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?';
  return any([
    test('host', 'regex', `(?:[a-z0-9_-]{1,63}\\.)*[a-z_-][a-z0-9_-]{0,62}${port}`),
    test('host', 'regex', `${octet}(?:\\.${octet}){3}${port}`),
  ]);
}
