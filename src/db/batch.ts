/** How many turns of the event loop a batch may wait while each brings more. */
const mostTurns = 8

/** What many requests ask at the same moment, joined into one statement. See `batched`. */
export type Batched<Key, Answer> = {
  /** `done` is called with the answer, or with the error of the statement. The hottest reads use this form. */
  ask(key: Key, done: Done<Answer>): void
  load(key: Key): Promise<Answer>
  /** Sends what waits, and resolves when nothing is under way any more. */
  settle(): Promise<void>
}

type Done<Answer> = (error: unknown, answer?: Answer) => void

/**
 * Joins what many requests ask at the same moment into one statement.
 *
 * A key is put in the open batch. The batch leaves when a turn of the event loop has brought no more keys, or after
 * `mostTurns` of them; while `lanes` statements are under way it waits for one to be back, and for what comes in
 * answer to it. So the busier the server, the larger the batches (a statement for 16 keys costs little more than one
 * for a single key), and an idle one adds no wait. Nothing is remembered from one batch to the next, so an answer is
 * never older than its question. `run` gives one answer per key, in the order of the keys.
 * A batch that fails fails all of its callers.
 * `restMs`: how long a batch that is not full waits for more, in milliseconds: for what nobody waits for.
 */
export function batched<Key, Answer>(
  run: (keys: Key[]) => Promise<Answer[]>,
  { lanes = 1, most = 200, restMs = 0 } = {},
): Batched<Key, Answer> {
  let keys: Key[] = []
  let waiting: Done<Answer>[] = []
  let underWay = 0
  let scheduled = false
  let turns = 0
  let seen = 0
  let resting: NodeJS.Timeout | undefined
  const settling: (() => void)[] = []

  // Another turn of the event loop as long as turns bring more.
  const gather = () => {
    resting = undefined
    if (keys.length > seen && keys.length < most && ++turns < mostTurns) {
      seen = keys.length
      setImmediate(gather)
      return
    }
    scheduled = false
    leave()
  }
  const leave = () => {
    turns = 0
    seen = 0
    while (keys.length > 0 && underWay < lanes) {
      const asked = keys.length <= most ? keys : keys.slice(0, most)
      const asking = asked === keys ? waiting : waiting.slice(0, most)
      keys = asked === keys ? [] : keys.slice(most)
      waiting = asking === waiting ? [] : waiting.slice(most)
      underWay++
      run(asked).then(
        (answers) => back(asking, (done, i) => done(undefined, answers[i])),
        (error) => back(asking, (done) => done(error)),
      )
    }
  }
  const back = (asking: Done<Answer>[], tell: (done: Done<Answer>, i: number) => void) => {
    underWay--
    for (const [i, done] of asking.entries()) tell(done, i)
    if (keys.length > 0 && !scheduled && underWay < lanes) schedule()
    for (const resolve of settling.splice(0)) resolve()
  }
  const schedule = () => {
    scheduled = true
    if (restMs > 0 && keys.length < most) resting = setTimeout(gather, restMs)
    else setImmediate(gather)
  }
  const rested = () => {
    clearTimeout(resting)
    gather()
  }
  const ask = (key: Key, done: Done<Answer>) => {
    keys.push(key)
    waiting.push(done)
    if (resting && keys.length === most) rested()
    else if (!scheduled && underWay < lanes) schedule()
  }
  return {
    ask,
    load: (key) =>
      new Promise((resolve, reject) => {
        ask(key, (error, answer) => (error === undefined ? resolve(answer as Answer) : reject(error)))
      }),
    async settle() {
      while (keys.length > 0 || underWay > 0) {
        if (resting) rested()
        await new Promise<void>((resolve) => settling.push(resolve))
      }
    },
  }
}

/**
 * For a batch whose questions are often the same, and one statement answers all: it is asked none twice. Answers stand in
 * the order of the questions; the same question has the same one, not a copy of it. `textOf`: what tells questions apart.
 */
export async function askedDistinct<Key, Answer>(
  keys: readonly Key[],
  run: (keys: Key[]) => Promise<Answer[]>,
  textOf: (key: Key) => string = JSON.stringify,
): Promise<Answer[]> {
  if (keys.length === 1) return run([...keys])
  const places = new Map<string, number>()
  const distinct: Key[] = []
  const at = keys.map((key) => {
    const text = textOf(key)
    const place = places.get(text) ?? distinct.push(key) - 1
    places.set(text, place)
    return place
  })
  const answers = await run(distinct)
  return at.map((place) => answers[place] as Answer)
}

/** The same where each is a statement of its own: it is asked once. Answers stand in the order of the questions. */
export function askedOnce<Key, Answer>(keys: readonly Key[], run: (key: Key) => Promise<Answer>): Promise<Answer[]> {
  const asked = new Map<string, Promise<Answer>>()
  const answers = keys.map((key) => {
    const text = JSON.stringify(key)
    const answer = asked.get(text) ?? run(key)
    asked.set(text, answer)
    return answer
  })
  return Promise.all(answers)
}
