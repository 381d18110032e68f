import { foldHeaderName } from '../authz/header-alias.ts';
import { ownHeaderPrefix } from './response.ts';

/**
 * Whether an application must not see a header because it could take it for one that the mesh has set: ours, in any
 * spelling, and another spelling of the one in which the proxy names the caller.
 * @param name lower case
 */
export function isForeign(name: string): boolean {
  // Folding keeps letters where they are: most names of each call are told apart by two of them.
  if (!name.startsWith('x')) return false;
  const third = name.charAt(2);
  if (third === callerHeader.charAt(2)) {
    return (
      name.length === callerHeader.length && name !== callerHeader && foldHeaderName(name) === callerHeader
    );
  }
  return (
    third === ownHeaderPrefix.charAt(2) &&
    foldHeaderName(name.slice(0, ownHeaderPrefix.length)) === ownHeaderPrefix
  );
}

/** Set by the proxy, from the certificate it has verified. */
const callerHeader = 'x-forwarded-client-cert';

/**
 * The same as expressions of RE2 that match whole names in lower case, for proxies: what a proxy lets pass by itself nobody
 * here takes such headers from.
 */
export const foreignHeaderPatterns = [
  'x[^a-z0-9]countersign[^a-z0-9].*',
  // Every spelling but the one that the proxy sets.
  'x[^a-z0-9-]forwarded[^a-z0-9]client[^a-z0-9]cert',
  'x-forwarded[^a-z0-9-]client[^a-z0-9]cert',
  'x-forwarded-client[^a-z0-9-]cert',
] as const;
