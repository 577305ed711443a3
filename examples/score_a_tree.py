"""A preference loss on a token tree built by hand, from ids to gradient.

python examples/score_a_tree.py
"""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import kilter
from kilter.objectives import PairScores, dpo

torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
policy = kilter.Scorer(LlamaForCausalLM(config))

# Two answers to one prompt, which also begin alike: ids, and where the answer starts.
prompt = [1, 5, 9, 12]
chosen = kilter.TokenSequence(np.array([*prompt, 20, 21, 22, 2], np.int32), first=len(prompt))
rejected = kilter.TokenSequence(np.array([*prompt, 20, 30, 2], np.int32), first=len(prompt))
tree = kilter.TokenTree.build([chosen, rejected])
print(f"{len(chosen.ids) + len(rejected.ids)} tokens in {len(tree)} nodes")

# One forward: a log-prob for each scored node, summed along each answer. Row 0 is chosen, row 1 rejected.
prepared = kilter.PreparedTree(tree)
(log_prob,) = policy(prepared)
score = prepared.sum_edges(log_prob)

# The start is the reference: every log-ratio is 0 and the loss log 2, but its gradient is not 0.
log_ratio = score - score.detach()
loss = dpo(PairScores.of_log_ratios(log_ratio[:1], log_ratio[1:]), beta=0.1).mean()
loss.backward()
norm = torch.nn.utils.get_total_norm(parameter.grad for parameter in policy.parameters())
print(f"log-probs {score.tolist()}, loss {loss.item():.4f}, gradient norm {norm:.4f}")
