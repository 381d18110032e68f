import type { Permission } from '../access.ts';
import type { Findings } from './answer.ts';
import { type ParameterTable, parseParameters, type ValuesOf } from './parameter.ts';
import type { QuestionPorts } from './ports.ts';

/** What a question is put with: the house, and what whoever asks may read. */
export type Asking = QuestionPorts & {
  /** Who put the question may do this in the whole mesh. */
  readonly may: (permission: Permission) => boolean;
};

/** A question that an auditor puts to the log. */
export type Question = {
  /** `[a-z-]+`, its name in commands and URLs. */
  readonly name: string;
  /** What it answers, in one line: lower case, no full stop. */
  readonly line: string;
  readonly parameters: readonly QuestionParameter[];
  /** What it takes besides `audit:read`, each for the whole mesh. */
  readonly needs: readonly Permission[];
  /**
   * Reads the parameters, before anything is read of the log.
   * @returns what finds the answer; it throws `audit_query_invalid`, `audit_cursor_invalid` and what the ports throw
   * @throws MeshError `audit_query_invalid`, `audit_cursor_invalid`
   */
  readonly parse: (fields: ReadonlyMap<string, string>, now: Date) => (asking: Asking) => Promise<Asked>;
};

/** A parameter as it is listed. */
export type QuestionParameter = {
  readonly name: string;
  readonly line: string;
  readonly isRequired: boolean;
};

/** What was found, and the window of time that it was looked for in; null where none was given. */
export type Asked = Findings & { readonly since: Date | null; readonly until: Date | null };

/** Makes a question out of a table of parameters and what finds the answer. */
export function defineQuestion<const P extends ParameterTable>(definition: {
  readonly name: string;
  readonly line: string;
  readonly parameters: P;
  readonly needs?: readonly Permission[];
  readonly find: (asked: ValuesOf<P>, asking: Asking) => Promise<Findings>;
}): Question {
  const { name, line, parameters, needs = [], find } = definition;
  return {
    name,
    line,
    needs,
    parameters: Object.entries(parameters).map(([parameter, { line: about, otherwise }]) => ({
      name: parameter,
      line: about,
      isRequired: otherwise === null,
    })),
    parse: (fields, now) => {
      const asked = parseParameters(parameters, fields, now);
      const { since, until } = asked as { readonly since?: Date | null; readonly until?: Date | null };
      return async (asking) => ({
        ...(await find(asked, asking)),
        since: since ?? null,
        until: until ?? null,
      });
    },
  };
}
