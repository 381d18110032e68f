/** Names of peers as they are told: too many become `*`. */
export type Claims = {
  /** @returns the name, or `*` when its proxy has told of too many others in this window */
  readonly fold: (destination: string, name: string) => string;
  /** Begins another window. */
  readonly clear: () => void;
};

/** Bounds what strangers can make the log tell: whoever can connect to a proxy can make up names. */
export function createClaims(maxNames = 32): Claims {
  const known = new Map<string, Set<string>>();
  return {
    fold: (destination, name) => {
      if (name === '') return '';
      const names = known.get(destination) ?? new Set<string>();
      known.set(destination, names);
      if (names.has(name)) return name;
      if (names.size >= maxNames) return '*';
      names.add(name);
      return name;
    },
    clear: () => known.clear(),
  };
}
