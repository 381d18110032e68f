/** What was found under each name. Most policies ask for one name again and again, for which no map is made. */
export class Answers<T> {
  #name: string | undefined;
  #last: T | undefined;
  #others: Map<string, T> | undefined;

  /** Whether that is known; then `last` is it. */
  has(name: string): boolean {
    if (name === this.#name) return true;
    const others = this.#others;
    if (others === undefined || !others.has(name)) return false;
    this.#name = name;
    this.#last = others.get(name);
    return true;
  }

  /** INVARIANT: read only after `has` said yes. */
  get last(): T {
    return this.#last as T;
  }

  keep(name: string, answer: T): T {
    if (this.#name !== undefined) (this.#others ??= new Map([[this.#name, this.last]])).set(name, answer);
    this.#name = name;
    this.#last = answer;
    return answer;
  }
}
