/** An answer of the API as it travels: times are text. */
export type Travelled<T> = T extends Date
  ? string
  : T extends readonly (infer U)[]
    ? readonly Travelled<U>[]
    : T extends object
      ? { readonly [K in keyof T]: Travelled<T[K]> }
      : T;
