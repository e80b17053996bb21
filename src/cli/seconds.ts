import { InvalidArgumentError } from 'commander'

const units: Readonly<Record<string, number>> = { m: 60, h: 60 * 60, d: 24 * 60 * 60 }

/** A time of an option, in seconds. */
export function secondsOf(text: string): number {
  const [, number, unit = ''] = /^([1-9]\d{0,4})([mhd])$/.exec(text) ?? []
  if (number !== undefined) return Number(number) * (units[unit] ?? 0)
  throw new InvalidArgumentError('It is a time such as 90m, 6h or 30d.')
}
