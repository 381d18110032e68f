/** Things to undo, whatever happens: the last made goes first. */
export type Scope = {
  readonly defer: (undo: () => unknown) => void;
  /** Undoes everything, then throws the first error, if there was one. */
  readonly close: () => Promise<void>;
};

export function createScope(): Scope {
  const undos: (() => unknown)[] = [];
  return {
    defer: (undo) => {
      undos.push(undo);
    },
    close: async () => {
      const errors: unknown[] = [];
      for (let undo = undos.pop(); undo !== undefined; undo = undos.pop()) {
        try {
          await undo();
        } catch (error) {
          errors.push(error);
        }
      }
      if (errors.length > 0) throw errors[0];
    },
  };
}
