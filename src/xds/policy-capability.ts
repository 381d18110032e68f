import type { Node } from '../wire/core.ts';

/** What a proxy has to declare before it is given a policy to decide by. */
export const policyCapabilities = {
  /** Behind the filter stands one that asks the agent about every call that the filter did not allow by name. */
  ask: 'ask-v1',
  /** The filter reads matcher trees as they are made here. */
  matcher: 'matcher-v1',
} as const;

/** What is served to a proxy: policies as they are, one that asks about every call, or nothing. */
export type PolicyService = {
  readonly serves: 'policy' | 'ask' | 'nothing';
  /** What it lacks, for people; null when it lacks nothing. */
  readonly lacks: string | null;
};

/**
 * Reads what a proxy declares: in its node metadata `countersign: {policy: ["ask-v1", "matcher-v1"]}`, and its version.
 * All of that is its own word. Who lies about it gets a policy for calls to itself, and harms nobody else.
 *
 * A proxy without `ask-v1` is served nothing, for to it *ask* would mean *allow*.
 */
export function policyServiceFor(node: Node | undefined): PolicyService {
  const declared = declaredBy(node);
  if (!declared.has(policyCapabilities.ask)) return { serves: 'nothing', lacks: lacking('ask') };
  if (!declared.has(policyCapabilities.matcher)) return { serves: 'ask', lacks: lacking('matcher') };
  const version = envoyVersion(node);
  if (version === undefined) return { serves: 'ask', lacks: 'it does not say which Envoy it is' };
  const [major, minor] = version;
  const isOlder = major < leastMajor || (major === leastMajor && minor < leastMinor);
  if (!isOlder) return { serves: 'policy', lacks: null };
  return {
    serves: 'ask',
    lacks: `it is Envoy ${major}.${minor}; policies are for ${leastMajor}.${leastMinor} and later`,
  };
}

function lacking(what: keyof typeof policyCapabilities): string {
  return `its node metadata does not declare ${policyCapabilities[what]}`;
}

function declaredBy(node: Node | undefined): ReadonlySet<unknown> {
  const own: unknown = node?.metadata?.['countersign'];
  if (typeof own !== 'object' || own === null || !('policy' in own)) return new Set();
  const { policy } = own;
  return new Set(Array.isArray(policy) ? policy.slice(0, maxDeclared) : []);
}

function envoyVersion(node: Node | undefined): readonly [major: number, minor: number] | undefined {
  const type = node?.userAgentVersionType;
  const version = type?.$case === 'userAgentBuildVersion' ? type.userAgentBuildVersion.version : undefined;
  if (node?.userAgentName !== 'envoy' || version === undefined) return undefined;
  return [version.majorNumber, version.minorNumber];
}

const maxDeclared = 64;
// The first that this was proven with: what an older one makes of a tree is not known.
const leastMajor = 1;
const leastMinor = 40;
