"""How well the shipped front desk understands: unseen phrasings and off-topic sentences against its example phrases.

python -m bench.intents
"""

from pathlib import Path

import numpy as np

from sipagent.conversation.agents.intents import UNDERSTOOD
from sipagent.dialplan.loader import load_file
from sipagent.speech.embedding import Embedder

DIALPLAN = Path(__file__).parents[1] / "dialplans" / "front-desk.yaml"

# As a recogniser writes them; none is an example of the dialplan. Half sets the threshold, half is held back.
UNSEEN = [
    ("Hi, do you work weekends?", "hours"),
    ("Until what time are you there today?", "hours"),
    ("Are you guys closed on Friday evening?", "hours"),
    ("Is the office open at eight in the morning?", "hours"),
    ("When do you close?", "hours"),
    ("What would a filling set me back?", "price"),
    ("Is a cleaning expensive?", "price"),
    ("Could you tell me the fee for an X-ray?", "price"),
    ("What's the cost of a checkup?", "price"),
    ("How much do you charge?", "price"),
    ("Which street are you on?", "location"),
    ("Can you give me directions?", "location"),
    ("Where can I leave my car?", "location"),
    ("What part of town is the practice in?", "location"),
    ("How can I find you?", "location"),
    ("I'd like to schedule a visit for next week.", "book"),
    ("Can you fit me in this afternoon?", "book"),
    ("I would like to make a reservation for a cleaning.", "book"),
    ("Do you have any availability on Thursday?", "book"),
    ("I need an appointment, please.", "book"),
    ("Something came up and I won't be able to come.", "cancel"),
    ("Please move my visit to another day.", "cancel"),
    ("I have to call off my appointment.", "cancel"),
    ("Could I postpone my appointment to next month?", "cancel"),
    ("I broke a tooth and it is killing me.", "emergency"),
    ("My gums won't stop bleeding.", "emergency"),
    ("I have a severe toothache.", "emergency"),
    ("Help, my face is swollen.", "emergency"),
    ("Thanks a lot.", "thanks"),
    ("Thank you so much.", "thanks"),
    ("Okay, that's everything, goodbye.", "goodbye"),
    ("See you later, bye.", "goodbye"),
    ("No, that will be all.", "goodbye"),
    ("What is the capital of France?", ""),
    ("My cat likes pizza.", ""),
    ("Tell me a joke.", ""),
    ("Do you like football?", ""),
    ("The weather is nice.", ""),
    ("I lost my umbrella on the train.", ""),
    ("Please enter your password followed by the pound key.", ""),
    ("The quick brown fox jumps over the lazy dog.", ""),
    ("Is this the fire department?", ""),
    ("I want to order two large pizzas.", ""),
]


def main() -> None:
    agent = load_file(DIALPLAN).agents["front-desk"]
    phrases = [(phrase, name) for name, intent in agent.intents.items() for phrase in intent.examples]
    embedder = Embedder()
    examples = embedder.embed([phrase for phrase, _ in phrases])
    scores = embedder.embed([text.lower().strip(" .!?,") for text, _ in UNSEEN]) @ examples.T
    best = scores.argmax(axis=1)
    found = [(phrases[i][1], float(scores[row, i])) for row, i in enumerate(best)]

    meant = [(answer, wanted) for answer, (_, wanted) in zip(found, UNSEEN, strict=True) if wanted]
    print(f"nearest example names the intent: {sum(a[0] == w for a, w in meant)} of {len(meant)}")
    print("| threshold | right (half that set it) | right (half held back) |\n|---|---|---|")
    for threshold in np.arange(0.30, 0.80, 0.05):
        right = [
            (name if score >= threshold else "") == wanted
            for (name, score), (_, wanted) in zip(found, UNSEEN, strict=True)
        ]
        mark = "**" if abs(threshold - UNDERSTOOD) < 0.01 else ""
        print(f"| {mark}{threshold:.2f}{mark} | {np.mean(right[::2]):.0%} | {np.mean(right[1::2]):.0%} |")
    for (name, score), (text, wanted) in zip(found, UNSEEN, strict=True):
        if (name if score >= UNDERSTOOD else "") != wanted:
            print(f"  {text!r}: {name} {score:.2f}, meant {wanted or 'nothing'}")


if __name__ == "__main__":
    main()
