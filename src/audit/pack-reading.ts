import type { PackManifest } from './pack-manifest.ts';
import { readSize } from './pack-primitives.ts';

// The page of a pack has these functions as their own text: see pack-primitives.ts.

/**
 * Reads a manifest, nothing of which is to be trusted; undefined when it is none of this version. Members that are not known
 * are passed over.
 */
export function readPackManifest(text: string): PackManifest | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const isCount = (one: unknown): boolean => typeof one === 'number' && readSize(String(one)) === one;
  const isText = (one: unknown): boolean => typeof one === 'string';
  const isTime = (one: unknown): boolean =>
    typeof one === 'string' && /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z$/.test(one);
  const all = (one: unknown, is: (member: unknown) => boolean): boolean =>
    typeof one === 'object' && one !== null && Object.values(one).every(is);
  const has = (one: unknown, shape: Readonly<Record<string, (member: unknown) => boolean>>): boolean =>
    typeof one === 'object' &&
    one !== null &&
    Object.entries(shape).every(([name, is]) => Object.hasOwn(one, name) && is((one as never)[name]));
  const isManifest = has(value, {
    format: (one) => one === 'countersign-audit-pack/1',
    origin: isText,
    key: isText,
    madeAt: isTime,
    window: (one) => has(one, { from: isTime, until: isTime }),
    log: (one) => has(one, { size: isCount, root: isText }),
    since: (one) => one === null || has(one, { size: isCount }),
    population: (one) =>
      has(one, {
        types: (types) => Array.isArray(types) && types.every(isText),
        records: isCount,
        byType: (counts) => all(counts, isCount),
      }),
    calls: (one) =>
      one === null ||
      (has(one, { allowed: isCount, denied: isCount }) &&
        (!Object.hasOwn(one as object, 'byProxies') ||
          has(one, { byProxies: (more) => has(more, { allowed: isCount, denied: isCount }) }))),
    sample: (one) =>
      has(one, {
        algorithm: (text) => text === 'sha256(seed:index), lowest first',
        seed: (seed) => typeof seed === 'string' && /^[A-Za-z0-9._-]{1,64}$/.test(seed),
        size: isCount,
        indexes: (indexes) => Array.isArray(indexes) && indexes.every(isCount),
      }),
    coverage: (one) => has(one, { losses: isCount, lost: isCount, starts: isCount, stops: isCount }),
    files: (one) => all(one, isText),
  });
  return isManifest ? (value as PackManifest) : undefined;
}
