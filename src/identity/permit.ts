import type { Place } from '../errors.ts';
import type { RegistrationEntry } from './entry.ts';

/** One thing that an edit would change, once it has been read. */
export type Edit =
  /** `before` is what it would replace, `after` what it would leave; one of them is there. */
  | {
      readonly kind: 'entry';
      readonly before: RegistrationEntry | undefined;
      readonly after: RegistrationEntry | undefined;
    }
  | { readonly kind: 'policy'; readonly namespace: string; readonly name: string }
  /** `entries` are those that name it. */
  | {
      readonly kind: 'node-alias';
      readonly name: string;
      readonly entries: readonly RegistrationEntry[];
    }
  | { readonly kind: 'grant'; readonly name: string };

/**
 * What whoever edits may touch. It is asked when the edit is worked out, on the state that it would change, and so cannot
 * be overtaken by another edit. Without one everything is permitted.
 */
export type Permit = {
  /** Whether they may know of an entry. What they may not know of is not there for them. */
  readonly sees: (entry: RegistrationEntry) => boolean;
  /** @param place where the author wrote it. @throws MeshError `forbidden` */
  readonly demand: (edit: Edit, place?: Place) => void;
};
