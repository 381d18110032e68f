import type { Metadata } from '@grpc/grpc-js';
import { MeshError } from '../errors.ts';

/**
 * Demands the one piece of metadata that a program must set on purpose: whoever makes a server send requests elsewhere
 * (SSRF) cannot set it.
 * @throws MeshError `message_invalid`
 * @see SPIFFE Workload Endpoint, section 3
 */
export function demandSecurityHeader(metadata: Metadata): void {
  const [value, ...more] = metadata.get(headerName);
  if (value === 'true' && more.length === 0) return;
  throw new MeshError('message_invalid', `the call lacks the metadata ${headerName}: true, exactly once`, {
    fix: 'use a SPIFFE library, or set it',
  });
}

const headerName = 'workload.spiffe.io';
