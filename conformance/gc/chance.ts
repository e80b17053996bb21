/** Chance that can be repeated: the same seed gives the same numbers. */
export type Chance = {
  /** From 0 to below 1. */
  fraction(): number
  /** A whole number from 0 to below `limit`. */
  below(limit: number): number
  pick<T>(list: readonly T[]): T
  bytes(length: number): Buffer
  /** A chance of its own, which does not depend on how much is drawn from this one. */
  branch(name: string): Chance
}

/** mulberry32. Source: https://github.com/bryc/code/blob/master/jshash/PRNGs.md */
export function chanceOf(seed: number): Chance {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return (mixed ^ (mixed >>> 14)) >>> 0
  }
  const below = (limit: number) => next() % limit
  return {
    fraction: () => next() / 2 ** 32,
    below,
    pick<T>(list: readonly T[]): T {
      return list[below(list.length)] as T
    },
    bytes(length) {
      const bytes = Buffer.alloc(length)
      for (let at = 0; at < length; at += 4) bytes.writeUInt32LE(next(), at > length - 4 ? Math.max(0, length - 4) : at)
      return bytes
    },
    branch: (name) => chanceOf([...name].reduce((sum, letter) => Math.imul(sum, 31) + letter.charCodeAt(0), seed)),
  }
}
