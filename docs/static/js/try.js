// The page Try it. TRY comes from try/page.js; each ticket is a script of its own (a page on a disk may not
// fetch anything else): a WebAssembly module, compressed, in base64.
const INK = [122, 105, 240], OTHER = [217, 119, 40]   // what is positive, what is negative
const SIDE = 280   // of the board, in pixels

function make(tag, properties, ...children) {
  const o = Object.assign(document.createElement(tag), properties)
  o.append(...children)
  return o
}

const bytesOf = text => Uint8Array.from(atob(text), c => c.charCodeAt())
const count = n => n.toLocaleString('en')
const percent = x => `${(100 * x).toFixed(1)} %`

// Tickets

TRY.arrived = (name, data) => TRY.sets.flatMap(s => s.tickets).find(t => t.name == name).arrived(data)

function load(ticket) {   // → what its module exports
  return ticket.module ??= new Promise((arrived, fail) => {
    ticket.arrived = arrived
    document.head.append(make('script', {src: `try/${ticket.name}.js`, onerror: fail}))
  }).then(async data => {
    ticket.loaded = data.length
    const unpacked = new Blob([bytesOf(data)]).stream().pipeThrough(new DecompressionStream('gzip'))
    return (await WebAssembly.instantiate(await new Response(unpacked).arrayBuffer())).instance.exports
  })
}

function classify(module, image, classes) {
  new Uint8Array(module.memory.buffer, module.image(), image.length).set(image)
  const best = module.classify()
  return {best, logits: [...new Float32Array(module.memory.buffer, module.logits(), classes)]}
}

function timed(module) {   // milliseconds; clocks of browsers are coarse
  const start = performance.now()
  let n = 0
  do module.classify(); while (++n < 200 && performance.now() < start + 20)
  return (performance.now() - start) / n
}

function seenBy(module, layers) {   // what goes into each layer, of the image that is there
  module.begin()
  let at = 0
  return layers.map(o => {
    for (; at < o.step; at++) module.step(at)
    const size = o.height * o.width, n = o.channels * size
    if (!o.signs) return new Float32Array(module.memory.buffer, module.reals() + 4 * o.from, n).slice()
    const four = new Uint8Array(module.memory.buffer, module.signs() + o.from)
    const sign = i => four[Math.floor(i / size / 4) * size + i % size] >> Math.floor(i / size) % 4 & 1
    return Float32Array.from({length: n}, (_, i) => sign(i) ? 1 : -1)
  })
}

function weightsOf(module, layer, outputs) {   // −1, 0, 1: of the first outputs of a layer
  const n = layer.channels * layer.places, negative = module.negative(layer.step, layer.outputs * n)
  const memory = new Uint8Array(module.memory.buffer)
  const bit = (at, i) => memory[at + (i >> 3)] >> (i & 7) & 1, kept = module.kept(layer.step)
  return Float32Array.from({length: outputs * n}, (_, i) => bit(kept, i) * (1 - 2 * bit(negative, i)))
}

// Pictures

function tiles(numbers, height, width, label) {   // planes side by side; a list of numbers is one plane
  if (height * width == 1) {
    width = Math.ceil(Math.sqrt(numbers.length))
    height = Math.ceil(numbers.length / width)
  }
  const n = Math.ceil(numbers.length / height / width)
  const columns = Math.min(n, Math.max(1, Math.round(Math.sqrt(2 * n * height / width))))
  const canvas = make('canvas', {width: columns * (width + 1) - 1, height: Math.ceil(n / columns) * (height + 1) - 1})
  const context = canvas.getContext('2d'), picture = context.createImageData(canvas.width, canvas.height)
  const most = numbers.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-9)
  numbers.forEach((v, i) => {
    const plane = Math.floor(i / height / width), y = Math.floor(i / width) % height, x = i % width
    const row = Math.floor(plane / columns) * (height + 1) + y, column = plane % columns * (width + 1) + x
    picture.data.set([...(v > 0 ? INK : OTHER), 255 * Math.abs(v) / most], 4 * (row * canvas.width + column))
  })
  context.putImageData(picture, 0, 0)
  canvas.role = 'img'
  canvas.ariaLabel = label
  canvas.style.width = `${Math.min(220, canvas.width * Math.max(1, Math.floor(110 / canvas.height)))}px`
  return make('figure', {}, canvas, make('figcaption', {}, label))
}

function thumbnail(image, [channels, height, width]) {
  const canvas = make('canvas', {width, height}), context = canvas.getContext('2d')
  const picture = context.createImageData(width, height), size = height * width
  for (let i = 0; i < size; i++) {
    const rgb = channels == 3 ? [0, 1, 2].map(c => image[c * size + i]) : Array(3).fill(255 - image[i])
    picture.data.set([...rgb, 255], 4 * i)
  }
  context.putImageData(picture, 0, 0)
  return canvas
}

// A drawing as MNIST has its digits: 20 pixels at the longest side, its centre of mass in the middle

function digit(strokes) {
  const points = strokes.flat(), fine = 8, pen = 2.4
  const [left, top] = [0, 1].map(k => Math.min(...points.map(p => p[k])))
  const [right, bottom] = [0, 1].map(k => Math.max(...points.map(p => p[k])))
  const scale = fine * (20 - pen) / Math.max(right - left, bottom - top, 1)
  const context = make('canvas', {width: 28 * fine, height: 28 * fine}).getContext('2d', {willReadFrequently: true})
  context.translate(14 * fine - scale * (left + right) / 2, 14 * fine - scale * (top + bottom) / 2)
  trace(context, strokes.map(s => s.map(p => p.map(v => scale * v))), pen * fine, 'black')
  const alpha = context.getImageData(0, 0, 28 * fine, 28 * fine).data, image = new Float32Array(784)
  for (let i = 0; i < alpha.length / 4; i++) {
    const y = Math.floor(i / 28 / fine / fine), x = Math.floor(i / fine) % 28
    image[28 * y + x] += alpha[4 * i + 3] / fine / fine
  }
  const total = image.reduce((a, b) => a + b), centre = f => image.reduce((a, v, i) => a + v * f(i), 0) / total
  const shift = at => Math.max(-4, Math.min(4, Math.round(13.5 - at)))
  const down = shift(centre(i => Math.floor(i / 28))), along = shift(centre(i => i % 28))
  const wrapped = i => (i + 28) % 28
  return Uint8Array.from(image, (_, i) => image[28 * wrapped(Math.floor(i / 28) - down) + wrapped(i % 28 - along)])
}

function trace(context, strokes, width, colour) {
  Object.assign(context, {lineWidth: width, lineCap: 'round', lineJoin: 'round', strokeStyle: colour})
  for (const [first, ...others] of strokes) {
    context.beginPath()
    context.moveTo(...first)
    context.lineTo(...first)
    others.forEach(p => context.lineTo(...p))
    context.stroke()
  }
}

function board(drawn) {   // by mouse, finger or keyboard; calls `drawn` with the strokes
  const canvas = make('canvas', {width: SIDE, height: SIDE, tabIndex: 0, role: 'application'})
  const pen = make('span', {className: 'pen'}), place = make('div', {className: 'board'}, canvas, pen)
  const clear = make('button', {textContent: 'Clear'})
  const help = make('p', {}, 'By keyboard: arrows move the pen, space puts it down and lifts it, Delete clears.')
  let strokes = [], at = [SIDE / 2, SIDE / 4], down = false
  canvas.ariaLabel = 'Board to draw a digit on'

  function show() {
    const context = canvas.getContext('2d')
    context.clearRect(0, 0, SIDE, SIDE)
    trace(context, strokes, 24, getComputedStyle(canvas).color)
    Object.assign(pen.style, {left: `${at[0] / SIDE * 100}%`, top: `${at[1] / SIDE * 100}%`})
    pen.classList.toggle('down', down)
  }
  function put(point) {
    at = point
    down = true
    strokes.push([at])
    show()
  }
  function move(point) {
    at = point.map(v => Math.max(0, Math.min(SIDE, v)))
    if (down) strokes.at(-1).push(at)
    show()
  }
  function lift() {
    if (down) drawn(strokes)
    down = false
    show()
  }
  function empty() {
    strokes = []
    down = false
    show()
  }
  const where = e => [e.offsetX, e.offsetY].map(v => v * SIDE / canvas.clientWidth)
  canvas.onpointerdown = e => { canvas.setPointerCapture(e.pointerId); put(where(e)) }
  canvas.onpointermove = e => down && e.pressure && move(where(e))
  canvas.onpointerup = canvas.onpointercancel = lift
  canvas.onkeydown = e => {
    const step = {ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10]}[e.key]
    if (step) {
      move(at.map((v, k) => v + step[k]))
      if (down) drawn(strokes)
    } else if (e.key == ' ') {
      down ? lift() : put(at)
    } else if (e.key == 'Delete' || e.key == 'Backspace') {
      empty()
    } else {
      return
    }
    e.preventDefault()
  }
  clear.onclick = empty
  show()
  return make('div', {}, place, clear, help)
}

// What is shown of a ticket

function card(ticket, set) {
  const answer = make('p', {className: 'answer', textContent: '…'}), pictures = make('div', {className: 'pictures'})
  answer.ariaLive = 'polite'
  const bars = set.classes.map(name => [make('span', {className: 'bar'}), make('span', {}), name])
  const rows = bars.map(([bar, number, name]) => make('li', {}, make('span', {}, name), make('span', {}, bar), number))
  const head = make('h2', {textContent: ticket.name})

  async function show(image) {
    const module = await load(ticket), {best, logits} = classify(module, image, set.classes.length)
    const low = Math.min(...logits), range = Math.max(...logits) - low || 1
    bars.forEach(([bar, number], i) => {
      bar.style.width = `${100 * (logits[i] - low) / range}%`
      number.textContent = logits[i].toFixed(1)
      rows[i].className = i == best ? 'best' : ''
    })
    const seen = seenBy(module, ticket.layers), first = ticket.layers[0]
    const outputs = Math.min(first.outputs, first.places > 100 ? 12 : 64), side = Math.sqrt(first.places)
    const whole = first.places == 1 && Math.sqrt(first.channels)   // a linear layer's row is an image
    pictures.replaceChildren(
      tiles(weightsOf(module, first, whole ? Math.min(outputs, 12) : outputs), whole || side, whole || side,
        `Weights of ${first.name}: +, − or removed`),
      ...ticket.layers.map((o, i) => tiles(seen[i], o.height, o.width, `What ${o.name} sees`)))
    answer.textContent = set.classes[best]
    ticket.time.textContent = timed(module).toFixed(2)
    ticket.bytes.textContent = count(ticket.loaded)
  }
  const fail = error => { answer.textContent = `This browser cannot run it: ${error.message ?? 'it did not arrive'}` }
  return {show: image => show(image).catch(fail), element: make('section', {}, head, answer, make('ul', {className: 'logits'}, ...rows), pictures)}
}

function table(set) {
  const head = ['ticket', 'method', 'pruned', 'test accuracy', 'file, bytes', 'loaded, bytes', 'as fp32, bytes', 'an answer, ms']
  const row = cells => make('tr', {}, ...cells.map(o => make('td', {}, o)))
  const rows = set.tickets.map(t => {
    t.bytes = make('span', {}, '…')
    t.time = make('span', {}, '…')
    return row([t.name, t.method, percent(t.sparsity), percent(t.accuracy), count(t.file), t.bytes, count(t.fp32), t.time])
  })
  rows.push(row([set.dense.name, 'dense', percent(0), percent(set.dense.accuracy), '', '', count(set.dense.fp32), '']))
  return make('table', {}, make('thead', {}, make('tr', {}, ...head.map(o => make('th', {}, o)))), make('tbody', {}, ...rows))
}

// The page

function panel(set) {   // all that belongs to a data set
  const cards = set.tickets.map(t => card(t, set)), size = set.shape.reduce((a, b) => a * b), all = bytesOf(set.images)
  const ask = image => Promise.all(cards.map(c => c.show(image)))
  const samples = set.classes.map((name, i) => {
    const image = all.slice(i * size, (i + 1) * size), button = make('button', {}, thumbnail(image, set.shape))
    button.ariaLabel = `Test image: ${name}`
    button.onclick = () => ask(image)
    return button
  })
  const images = make('div', {className: 'samples'}, ...samples), drawing = set.shape[0] == 1
  const draw = drawing ? [board(strokes => ask(digit(strokes)))] : []
  const element = make('div', {}, make('div', {className: 'ask'}, ...draw, images),
    make('div', {className: 'cards'}, ...cards.map(c => c.element)), table(set))
  return {element, start: () => element.started ??= ask(all.slice(0, size))}
}

const place = document.getElementById('try'), choices = make('p', {className: 'choices', role: 'group'})
choices.ariaLabel = 'Images'
place.append(choices)
TRY.sets.forEach((set, i) => {
  const {element, start} = panel(set), choice = make('input', {type: 'radio', name: 'set', checked: i == 0})
  element.hidden = i > 0
  choice.onchange = () => {
    for (const other of place.children) if (other != choices) other.hidden = other != element
    start()
  }
  choices.append(make('label', {}, choice, ` ${set.name} `))
  place.append(element)
  if (i == 0) start()
})
