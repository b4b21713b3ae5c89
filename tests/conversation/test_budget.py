"""The latency budget: what is done when turns run over, and that it is let go again."""

from sipagent.conversation.budget import LatencyBudget, Lever, Waited

SLOW_MODEL = Waited(total=1500, endpointing=340, stt=50, llm=1000, tts=60)
SLOW_ENDING = Waited(total=1300, endpointing=900, stt=50, llm=200, tts=60)
FAST = Waited(total=500, endpointing=340, stt=20, llm=50, tts=40)


def test_one_slow_turn_is_no_reason():
    budget = LatencyBudget(800)
    for waited in (SLOW_MODEL, FAST, FAST, SLOW_MODEL):
        budget.turn(waited)
    assert budget.record() == {}


def test_the_lever_of_the_longest_part_is_pulled():
    budget = LatencyBudget(800)
    for _ in range(2):
        budget.turn(SLOW_ENDING)
    assert budget.record() == {"endpointing": 1}
    assert budget.endpointing_scale < 1.0 and not budget.speculates_more
    budget = LatencyBudget(800)
    for _ in range(2):
        budget.turn(SLOW_MODEL)
    assert budget.speculates_more and budget.endpointing_scale == 1.0
    for _ in range(2):
        budget.turn(SLOW_MODEL)
    assert budget.hedge_ms("llm") > 0 and not budget.fastest_first("llm")
    for _ in range(2):
        budget.turn(SLOW_MODEL)
    assert budget.fastest_first("llm") and budget.hedge_ms("tts") == 0


def test_when_nothing_else_is_left_the_filler_comes_earlier_and_it_ends_there():
    budget = LatencyBudget(800)
    for _ in range(100):
        budget.turn(SLOW_MODEL)
    assert budget.filler_scale == 0.5
    assert set(budget.record()) == {str(lever) for lever in Lever}


def test_it_relaxes_in_the_order_opposite_to_that_in_which_it_was_pulled():
    budget = LatencyBudget(800)
    for _ in range(4):
        budget.turn(SLOW_MODEL)
    assert budget.record() == {"speculation": 1, "llm": 1}
    for _ in range(3):
        budget.turn(FAST)
    assert budget.record() == {"speculation": 1}
    for _ in range(3):
        budget.turn(FAST)
    assert budget.record() == {}


def test_turns_just_within_the_budget_keep_what_made_them_so():
    budget = LatencyBudget(800)
    for _ in range(2):
        budget.turn(SLOW_ENDING)
    for _ in range(9):
        budget.turn(Waited(total=750, endpointing=300))
    assert budget.record() == {"endpointing": 1}


def test_a_caller_who_was_cut_off_gets_the_silence_back():
    budget = LatencyBudget(800)
    for _ in range(2):
        budget.turn(SLOW_ENDING)
    budget.cut_off()
    assert budget.endpointing_scale == 1.0 and budget.record() == {}
    for _ in range(9):
        budget.turn(FAST)


def test_no_budget_no_levers():
    budget = LatencyBudget(0)
    for _ in range(9):
        budget.turn(SLOW_MODEL)
    assert budget.record() == {}
