import { createHash } from 'node:crypto';
import type { Leaf } from './proxy-tree.ts';

/** What the name of a leaf says. */
export type LeafName = {
  readonly verdict: Leaf['verdict'];
  /** `namespace/name rule[0]`, or empty when no rule decided. */
  readonly rule: string;
  /** A `DecisionReason` of an allow or a denial; of an ask, why the proxy does not decide. */
  readonly reason: string;
  /** The revision of the policies when the name tells it, else 0: the version of the whole tree is what tells it. */
  readonly revision: number;
};

/**
 * The name of a leaf that a rule decides: `allow:pay/ledger[0]`. No blanks, which Envoy turns into `_`; 256 bytes at
 * most: a longer name is cut, and ends in a part of its SHA-256.
 * @param rule `namespace/name rule[0]`
 */
export function nameOfRule(verdict: 'allow' | 'deny', rule: string): string {
  const [, policy = rule, index = '0'] = /^(.*) rule\[([0-9]+)\]$/s.exec(rule) ?? [];
  const plain = encode(policy);
  const short =
    plain.length <= maxPolicyLength
      ? plain
      : `${plain.slice(0, maxPolicyLength - 17)}~${createHash('sha256').update(policy).digest('hex').slice(0, 16)}`;
  return `${verdict}:${short}[${index}]`;
}

/** The name of a leaf that no rule decides: `deny:no_policy`, `ask:path`. @param reason `[a-z0-9_]` */
export function nameOfReason(verdict: 'deny' | 'ask', reason: string): string {
  return `${verdict}:${reason}`;
}

/** Reads the name of a leaf as an access log tells it; undefined for any other text. */
export function parseLeafName(name: string): LeafName | undefined {
  if (name.length > maxNameLength) return undefined;
  const [, verdict, body = ''] = /^(allow|deny|ask):([^\s:]+)$/.exec(name) ?? [];
  if (verdict !== 'allow' && verdict !== 'deny' && verdict !== 'ask') return undefined;
  const [, policy, index] = /^(.+\/.+)\[([0-9]{1,6})\]$/.exec(body) ?? [];
  if (policy !== undefined && verdict !== 'ask') {
    // Of a name that was cut the text is told as it is.
    const decoded = policy.includes('~') ? policy : decode(policy);
    if (decoded === undefined) return undefined;
    return { verdict, rule: `${decoded} rule[${index}]`, reason: `${verdict}_rule`, revision: 0 };
  }
  if (verdict === 'allow' || !/^[a-z0-9_]+$/.test(body)) return undefined;
  return { verdict, rule: '', reason: body, revision: 0 };
}

const maxPolicyLength = 240;
const maxNameLength = 256;

function encode(text: string): string {
  return [...Buffer.from(text.toWellFormed(), 'utf8')]
    .map((byte) => {
      const character = String.fromCharCode(byte);
      return /[A-Za-z0-9._/-]/.test(character) ? character : `%${byte.toString(16).padStart(2, '0')}`;
    })
    .join('');
}

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
