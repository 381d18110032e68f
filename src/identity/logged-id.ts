import { MeshError } from '../errors.ts';
import { SpiffeId } from '../spiffe/id.ts';

/** The SPIFFE ID of a workload that a record names; undefined for any other text: a record may name what nobody verified. */
export function readLoggedId(text: string): SpiffeId | undefined {
  try {
    return SpiffeId.parseWorkload(text);
  } catch (error) {
    if (error instanceof MeshError) return undefined;
    throw error;
  }
}
