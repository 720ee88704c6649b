/** Work that waits for the end of a turn of the event loop, so that all which one turn reads is passed on and sent
 *  in one go: first everything that was read is handed on, then everything that was written leaves. */

type Work = () => void

const passing: Work[] = []
const sending: Work[] = []
let isDue = false

/** Once per call, at the end of this turn. */
export function passOnAtTurnEnd(work: Work): void {
  passing.push(work)
  schedule()
}

/** After what is passed on, which may still write something. */
export function sendAtTurnEnd(work: Work): void {
  sending.push(work)
  schedule()
}

function schedule(): void {
  if (isDue) return
  isDue = true
  setImmediate(endTurn)
}

function endTurn(): void {
  isDue = false
  try {
    for (let work = next(); work; work = next()) work()
  } finally {
    if (passing.length + sending.length > 0) schedule() // one that threw must not keep the others waiting
  }
}

function next(): Work | undefined {
  return passing.shift() ?? sending.shift()
}
