import { foldHeaderName } from '../authz/header-alias.ts';
import { ownHeaderPrefix } from './response.ts';

/**
 * Whether an application must not see a header because it could take it for one that the mesh has set: ours, in any
 * spelling, and another spelling of the one in which the proxy names the caller.
 * @param name lower case
 */
export function isForeign(name: string): boolean {
  if (!name.startsWith('x')) return false;
  if (name.length === callerHeader.length && name !== callerHeader) {
    return foldHeaderName(name) === callerHeader;
  }
  return foldHeaderName(name.slice(0, ownHeaderPrefix.length)) === ownHeaderPrefix;
}

/** Set by the proxy, from the certificate it has verified. */
const callerHeader = 'x-forwarded-client-cert';
