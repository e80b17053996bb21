import * as v from 'valibot'

/** So many things that are wrong are told of one document; whoever has more to mend begins with these. */
export const mostViolations = 100

/**
 * A list of at most so many. Its length is looked at before its elements, and no more is looked at once more is wrong
 * than is told: each wrong element costs a thousand times the bytes that it has.
 */
export function boundedList<S extends v.GenericSchema>(item: S, most: number, message = 'must be a list') {
  const list = v.array(item, message)
  const bound = v.maxLength<v.InferOutput<typeof list>, number, string>(
    most,
    `must be at most ${most < 10_000 ? most : most.toLocaleString('en-US')}`,
  )
  type Run = (typeof list)['~run']
  const run: Run = (dataset, config) => {
    const { value: input } = dataset
    if (!Array.isArray(input)) return list['~run'](dataset, config)
    if (input.length > most) return untyped(bound['~run']({ typed: true, value: input }, config))
    return elementsOf(input, (value) => item['~run']({ value }, config)) as ReturnType<Run>
  }
  // The bound stands there too, for the description of the interface.
  return v.pipe({ ...list, '~run': run }, bound)
}

type Ran = { typed: boolean; value: unknown; issues?: v.BaseIssue<unknown>[] }

/** So that no check of the whole list is made of elements that nobody has looked at. */
function untyped<D extends { issues?: unknown }>(dataset: D) {
  return { ...dataset, typed: false } as unknown as v.OutputDataset<never, never>
}

function elementsOf(input: unknown[], run: (value: unknown) => unknown): Ran {
  const found: Ran & { value: unknown[] } = { typed: true, value: [] }
  for (const [key, value] of input.entries()) {
    const { typed, value: output, issues } = run(value) as Ran
    if (!typed) found.typed = false
    found.value.push(output)
    if (!issues) continue
    found.issues ??= []
    for (const issue of issues) {
      const here: v.ArrayPathItem = { type: 'array', origin: 'value', input, key, value }
      found.issues.push({ ...issue, path: issue.path ? [here, ...issue.path] : [here] })
    }
    if (found.issues.length > mostViolations) return { ...found, typed: false }
  }
  return found
}
