package dev.responsesgateway.client;

import dev.responsesgateway.v1.InputItem;
import dev.responsesgateway.v1.StartTurn;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;

/** What the session remembers of a lane, as long as there is something to remember. Guarded by the session's lock. */
final class LaneState {
  /** Response that the next turn continues from, if not the lane's own last one; empty if none. */
  String forkFrom = "";

  String lastResponseId = "";

  /** Calls of a response that a tool loop left without results; null if there are none. */
  OpenCalls open;

  /** Turns without an outcome. */
  int running;

  /**
   * Turns among them that answer open calls, or that their tool loop has given up. Whether they complete decides what the
   * next turn has to answer, so it waits.
   */
  int undecided;

  /**
   * Function calls of a response that nobody answers any more. Whoever continues from the response has to give a result
   * for each: the outputs go before the input of the next turn.
   */
  record OpenCalls(String responseId, List<InputItem> outputs) {}

  boolean forgettable() {
    return running <= 0 && lastResponseId.isEmpty() && forkFrom.isEmpty();
  }

  /** Adds results for the calls that a tool loop has left open where the turn continues; false if there are none. */
  boolean answer(StartTurn.Builder start) {
    var create = start.getCreate();
    if (open == null
        || start.hasNewConversation()
        || start.getInputModeValue() == dev.responsesgateway.v1.InputMode.INPUT_MODE_FULL_HISTORY_VALUE
        || create.hasConversation()
        || create.hasConversationId()) {
      return false;
    }
    var base = lastResponseId;
    if (start.hasPreviousResponseId()) {
      base = start.getPreviousResponseId();
    } else if (create.hasPreviousResponseId()) {
      base = create.getPreviousResponseId();
    }
    if (!base.equals(open.responseId())) {
      return false;
    }
    var answered = new HashSet<String>();
    create.getInputList().forEach(item -> answered.add(item.getFunctionCallOutput().getCallId()));
    var input = new ArrayList<InputItem>();
    for (var output : open.outputs()) {
      if (!answered.contains(output.getFunctionCallOutput().getCallId())) {
        input.add(output);
      }
    }
    input.addAll(create.getInputList());
    start.getCreateBuilder().clearInput().addAllInput(input);
    return true;
  }
}
