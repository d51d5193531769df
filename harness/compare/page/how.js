// What the words mean, and how the numbers are measured.

function drawHow() {
  document.title = "How it is measured: local model speed";
  const term = (name, text) => [h("dt", {}, name), h("dd", {}, text)];
  show(h("h1", { tabindex: -1 }, "How it is measured"),
    h("p", { class: "lead" }, "Contributors run one program on their own machines. It asks the same frozen ",
      "questions everywhere, and stamps each piece of text when it arrives. Every number here was computed ",
      "from these stamps."),
    h("h2", {}, "Words"), h("dl", { class: "terms" },
      Object.values(QUANTITIES).map((one) => term([h("b", {}, one.title), `, ${one.unit}`],
        [one.text, h("small", {}, ` The field calls it ${one.term}.`)])),
      term(h("b", {}, "machine"), "Graphics cards with their memory, or a chip with its memory. Main memory, " +
        "processor, power limit and system are its attributes."),
      term(h("b", {}, "bar"), "The median of its owners’ medians, so that one owner with many runs does not " +
        "outweigh the others. A machine with one owner is indicative."),
      term(h("b", {}, "rank"), "1 + the number of machines that are faster, by a t-test and at least 5 %. " +
        "Machines with “=” share a rank. Those above that are not clearly faster do not count, " +
        "so 4 can follow 3=, 3=, 3=."),
      term(h("b", {}, "left out"), "Runs with other questions or options, a prompt from a cache, a truncated " +
        "context, a client that was the bottleneck, or a hosted endpoint. The reason is shown with each."),
      term(h("b", {}, "reproduced"), "Two owners measured the same weights, runtime and settings, and their " +
        "intervals meet.")),
    h("h2", {}, "As fast as people read"), h("p", {}, `Adults read about ${READING.words} words of English ` +
      "non-fiction per minute (Brysbaert 2019, “How many words do we read per minute?”, Journal of Memory " +
      "and Language 109, a review of 190 studies). With 4 tokens for 3 words, OpenAI’s rule of thumb for " +
      `English, that is ${digits(READING.rate)} tokens per second.`),
    h("h2", {}, "Phases of a run"), h("dl", { class: "terms" }, Object.entries(DATA.phases).map(([name, text]) =>
      term([h("b", {}, PHASE_WORDS[name] || name), ` (${name})`], coded(`${text}.`)))),
    h("h2", {}, "Warnings"), h("dl", { class: "terms" }, Object.entries(DATA.flags).map(([name, flag]) =>
      term([h("b", {}, worded(name)), flag.refuses ? " (left out)" : ""], coded(`${flag.text} ${flag.remedy}`)))));
}
